"""Guidance as data: named passes of the model and, for every step, weights that sum to 1.

Every guidance of the field is such a table: ``p0 + s1 (p1 - p0) + s2 (p2 - p1)`` has the weights
``1 - s1``, ``s1 - s2`` and ``s2``. A pass of weight 0 is not evaluated, passes with equal conditions are
evaluated once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import InputError
from .filters import Filter, Pair

POSITIVE = "positive"
NEGATIVE = "negative"
WEIGHT_SUM_TOLERANCE = 1e-6
TEXT_RANK = 100


@dataclass(frozen=True)
class Guidance:
    """Passes and their weights.

    Args:
        passes: names, from the least to the most conditioned; with two of them they are the pair the
            filters work on.
        weights: for every step of the run one weight per pass; each row sums to 1.
        evaluated_as: for every pass the name of the pass whose prediction it shares, its own if none;
            empty when every pass is evaluated on its own.
    """

    passes: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    evaluated_as: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.evaluated_as:
            object.__setattr__(self, "evaluated_as", self.passes)
        if len(self.evaluated_as) != len(self.passes) or len(set(self.passes)) != len(self.passes):
            raise ValueError(f"passes {self.passes} and evaluated_as {self.evaluated_as} do not fit")
        for step, row in enumerate(self.weights):
            if len(row) != len(self.passes) or abs(sum(row) - 1.0) > WEIGHT_SUM_TOLERANCE:
                raise ValueError(f"weights {row} of step {step} must be one per pass and sum to 1")

    @property
    def steps(self) -> int:
        """Number of steps the table covers."""
        return len(self.weights)

    def active(self, step: int) -> tuple[str, ...]:
        """Names of the passes that count at ``step``, in order."""
        return tuple(name for name, weight in zip(self.passes, self.weights[step], strict=True) if weight)

    def evaluations(self, step: int) -> int:
        """How many times the model runs at ``step``."""
        shared = dict(zip(self.passes, self.evaluated_as, strict=True))
        return len({shared[name] for name in self.active(step)})

    def sharing_equal(self, condition_of: Callable[[str], Hashable]) -> Guidance:
        """This guidance with passes of equal condition evaluated once.

        Args:
            condition_of: for a pass name something that is equal for equal conditions.
        """
        first_with: dict[Hashable, str] = {}
        shared = tuple(first_with.setdefault(condition_of(name), name) for name in self.passes)
        return replace(self, evaluated_as=shared)

    def __str__(self) -> str:
        runs = sum(self.evaluations(step) for step in range(self.steps))
        scales = sorted({row[-1] for row in self.weights})
        span = f"{scales[0]:g}" if len(scales) == 1 else f"{scales[0]:g} to {scales[-1]:g}"
        return f"{'/'.join(self.passes)}, weight of {self.passes[-1]} {span}, {runs} model runs"


@dataclass(frozen=True)
class GuidanceLevel:
    """A condition with a guidance scale of its own.

    Levels are turned on one after the other, in ascending rank: ``p0`` is the pass with all of them off,
    ``p1`` has the first of them on, and so on. The text is a level of rank ``TEXT_RANK``: off is the
    negative prompt.

    Args:
        name: of the input it belongs to, and of the pass in which it is the last one turned on.
        scales: one per step.
        rank: its place in the order.
    """

    name: str
    scales: tuple[float, ...]
    rank: int = 0

    @property
    def is_neutral(self) -> bool:
        """Whether it is 1 throughout: the condition is then on in every pass."""
        return all(math.isclose(scale, 1.0) for scale in self.scales)


def level_guidance(levels: Sequence[GuidanceLevel]) -> Guidance:
    """The cascade of levels.

    Args:
        levels: in the order they are turned on, at least one. The passes are called ``NEGATIVE``, then by
            the level that was turned on last, and ``POSITIVE`` where all are on.
    """
    between = [level.name for level in levels[:-1]]
    return cascade((NEGATIVE, *between, POSITIVE), [level.scales for level in levels])


def cfg_guidance(scale: float | Sequence[float], steps: int) -> Guidance:
    """Classifier-free guidance, ``negative + scale (positive - negative)``.

    Args:
        scale: one value, or one per step: the last is repeated for missing steps, surplus is dropped.
            Steps of scale 1 evaluate the positive pass alone.
        steps: steps of the run.

    Raises:
        InputError: for an empty list or a value that is not a finite number.
    """
    return cascade((NEGATIVE, POSITIVE), (per_step("cfg", scale, steps),))


def cascade(passes: Sequence[str], scales: Sequence[Sequence[float]]) -> Guidance:
    """``p0 + s1 (p1 - p0) + s2 (p2 - p1) + ...`` for every step.

    Args:
        passes: names of ``p0, p1, ...``.
        scales: for every difference its scale at every step.
    """
    rows: list[tuple[float, ...]] = []
    for step_scales in zip(*scales, strict=True):
        bounds = (1.0, *(1.0 if math.isclose(scale, 1.0) else scale for scale in step_scales), 0.0)
        rows.append(tuple(bounds[i] - bounds[i + 1] for i in range(len(passes))))
    return Guidance(tuple(passes), tuple(rows))


def per_step(input_name: str, value: float | Sequence[float], steps: int) -> tuple[float, ...]:
    """A value for every step, out of a number or a list; the list is left as it is.

    Raises:
        InputError: for an empty list or a value that is not a finite number.
    """
    values = [float(v) for v in value] if isinstance(value, Sequence) else [float(value)]
    if not values:
        raise InputError(input_name, "the list is empty; give at least one value")
    for number in values:
        if not math.isfinite(number):
            raise InputError(input_name, f"{number} is not a number the sampler can use")
    return tuple(values[min(step, len(values) - 1)] for step in range(steps))


def guided_velocity(
    evaluate: Callable[[str], Tensor], guidance: Guidance, step: int, *, filters: Sequence[Filter] = ()
) -> Tensor:
    """The velocity that guidance makes of its passes at ``step``.

    Args:
        evaluate: the model's velocity for a pass name.
        guidance: the table.
        step: row of the table.
        filters: changes to the predictions, in the order they are applied. They work on guidance of two
            passes, and :meth:`~.filters.Filter.single` on the last pass when it is alone.
    """
    active = guidance.active(step)
    shared = dict(zip(guidance.passes, guidance.evaluated_as, strict=True))
    # the most conditioned pass first, as the reference does: adapters and caches see the same order
    distinct = list(dict.fromkeys(shared[name] for name in reversed(active)))
    evaluated = {name: evaluate(name) for name in distinct}
    predictions = {name: evaluated[shared[name]] for name in active}
    if len(active) == 1:
        velocity = predictions[active[0]]
        if active[0] == guidance.passes[-1]:
            for each in filters:
                velocity = each.single(velocity)
        return velocity
    weight = dict(zip(guidance.passes, guidance.weights[step], strict=True))
    if len(guidance.passes) == 2:
        negative, positive = guidance.passes
        pair = Pair(predictions[positive], predictions[negative], weight[positive])
        for each in filters:
            pair = each.pair(pair)
        return pair.combined()
    base = predictions[active[0]]
    velocity = base.clone()
    for name in active[1:]:
        velocity = torch.add(velocity, predictions[name] - base, alpha=weight[name])
    return velocity

"""What Uni3C is conditioned on."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor
from torch.nn import functional
from typing_extensions import Self

from ...attention.registry import AttentionFunction
from ...attention.sdpa import sdpa
from ...conditioning.conditioning import FamilyInput
from ...conditioning.geometry import TEMPORAL_STRIDE
from ...conditioning.length_fit import fit_remark, fitted_latent, frame_indices
from ...conditioning.run_setup import RunSetup
from ...conditioning.timed import Timed
from ...errors import InputError
from ...transformer.config import WanConfig
from ...transformer.program import EAGER, BlockProgram
from .network import HEAD_WIDTH, Uni3CNetwork

log = logging.getLogger(__name__)

UNI3C = "uni3c"
FLOAT32_BYTES = 4
IS_RENDERED = 0.5  # mask values above count


@dataclass(frozen=True)
class Uni3CControlnet:
    """A network and how it computes.

    Args:
        network: on the device of the run while it goes on.
        name: of its file, for messages.
        attention: of its blocks, whose heads have 64 channels.
        program: row functions of its blocks, eager or compiled.
    """

    network: Uni3CNetwork
    name: str
    attention: AttentionFunction = sdpa
    program: BlockProgram = EAGER


@dataclass(frozen=True)
class Uni3CInput(FamilyInput):
    """A video rendered along a camera path, and the network that reads it.

    Args:
        controlnet: the network.
        render: latent ``[1, 16, T, h, w]``, un-normalised until prepared; any length and picture size.
        mask: ``[F, H, W]`` by pixel frames, 1 where something was rendered. Once prepared ``[1, 1, 4 T, 8 h,
            8 w]``, four entries for each latent frame. ``None`` leaves the mask embedding out.
        strength: factor on what is added to the tokens; 0 is as if there were none.
    """

    needs: ClassVar[str] = "a Wan model with latents of 16 channels (not the 5B)"

    controlnet: Uni3CControlnet
    render: Timed
    mask: Timed | None = None
    strength: float = 1.0

    def at(self, step: int, count: int) -> Self | None:
        """Itself in its steps, unless its strength is 0."""
        return super().at(step, count) if self.strength else None

    def working_bytes(self, tokens: int, config: WanConfig, value_bytes: int) -> int:
        """Its own tokens, which stay through the blocks, its input, and what it computes once."""
        del value_bytes
        sizes = self.controlnet.network.config
        stream = sizes.width * self.controlnet.network.compute_dtype.itemsize
        values = sizes.in_channels + config.out_channels + (sizes.mask_width if self.mask else 0)
        return tokens * (stream + HEAD_WIDTH * FLOAT32_BYTES + 4 * values * FLOAT32_BYTES)

    def check(self, setup: RunSetup) -> None:
        """Refuse a network of another model and a latent of another VAE.

        Raises:
            InputError: it names both sides.
        """
        width = self.controlnet.network.config.main_width
        if width != setup.config.dim:
            raise InputError(
                "uni3c_embeds",
                f"{self.controlnet.name} belongs to models of width {width}, this model has width "
                f"{setup.config.dim}; Uni3C was made for the 14B models (width 5120)",
            )
        setup.check_latent(self.render.values, input_name="render_latent")

    def prepared(self, setup: RunSetup) -> Self:
        """Render and mask in the size and length of the video; zeros in leading and trailing frames."""
        render = setup.fitted(self.render.values, input_name="render_latent")
        given = setup.geometry.with_latent_frames(render.shape[2]).frames
        remark = fit_remark("the render", given, setup.geometry.frames)
        if remark:
            log.warning("%s", remark)
        render = fitted_latent(render, setup.geometry.latent_frames)
        mask = None if self.mask is None else _prepared_mask(self.mask.values, setup)
        return replace(self, render=Timed(setup.in_place(render)), mask=mask)


def _prepared_mask(mask: Tensor, setup: RunSetup) -> Timed:
    """``[F, H, W]`` as four entries ``[8 h, 8 w]`` for each latent frame of the run, zero or one.

    The first latent frame stands for one picture: it has three empty entries before that one's.
    """
    geometry = setup.geometry
    indices = frame_indices(mask.shape[0], geometry.frames)
    mask = (mask[indices] > IS_RENDERED).float()
    mask = functional.interpolate(mask[:, None], size=(geometry.height, geometry.width), mode="nearest")
    mask = mask.movedim(0, 1)[None].bool()
    before = TEMPORAL_STRIDE * setup.leading_frames + TEMPORAL_STRIDE - 1
    behind = TEMPORAL_STRIDE * setup.trailing_frames
    padded = functional.pad(mask, [0, 0, 0, 0, before, behind])
    return Timed(padded.to(setup.device), clock=TEMPORAL_STRIDE)

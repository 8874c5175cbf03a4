"""A model of blocks with weights of several dtypes, and passes over it on fake streams."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import torch
from comfyui_wanvideo.wanvideo.weights.plan import Placement, spread_evenly
from comfyui_wanvideo.wanvideo.weights.residency import ModelResidency
from torch import Tensor, nn

from .fake_streams import FakeStreams

DEVICE = torch.device("cuda", 0)


class Block(nn.Module):
    """Weights as quantised layers have them."""

    def __init__(self, generator: torch.Generator, width: int = 8) -> None:
        super().__init__()
        packed = torch.randint(0, 255, (width, 5), generator=generator, dtype=torch.uint8)
        dense = torch.randn(width, 6, generator=generator)
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.eight_bit = nn.Parameter(dense.to(torch.float8_e4m3fn), requires_grad=False)
        self.transposed = nn.Parameter(dense.bfloat16().t(), requires_grad=False)
        self.scale = nn.Parameter(dense[0, 0], requires_grad=False)
        self.register_buffer("table", dense[1])


class Model(nn.Module):
    """Blocks between an embedder and a head."""

    def __init__(self, widths: Collection[int] = (8,) * 6, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedder = nn.Linear(4, 300)
        self.head = nn.Linear(4, 500)
        self.blocks = nn.ModuleList(Block(generator, width) for width in widths)
        self.requires_grad_(False)


def tensors(module: nn.Module) -> list[Tensor]:
    """Parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


class Net(nn.Module):
    """Linear blocks between two linear layers."""

    def __init__(self, blocks: int = 6, width: int = 16) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Linear(width, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / width**0.5
        self.requires_grad_(False)

    def run(self, x: Tensor, walk: Callable[..., Iterable[tuple[int, nn.Module]]]) -> Tensor:
        """One pass over the blocks that `walk` brings."""
        x = self.first(x)
        for _index, block in walk(list(self.blocks), ()):
            x = torch.tanh(block(x))
        return x


def streaming(*indices: int, blocks: int = 6, slots: int = 2) -> Placement:
    """A placement that streams these blocks."""
    return Placement(blocks, indices, min(slots, len(indices)))


class Run:
    """A model on a fake device.

    Args:
        widths: of the blocks.
        streamed: how many, evenly spread.
        budget: bytes of memory that may be pinned; ``None`` is enough.
        streams: the device.
    """

    def __init__(
        self,
        widths: Collection[int] = (8,) * 6,
        streamed: int = 6,
        *,
        slots: int = 2,
        budget: int | None = None,
        streams: FakeStreams | None = None,
    ) -> None:
        self.streams = streams or FakeStreams()
        self.model = Model(widths)
        self.pointers = [tensor.data_ptr() for block in self.model.blocks for tensor in tensors(block)]
        self.masters = [[tensor.clone() for tensor in tensors(block)] for block in self.model.blocks]
        self.residency = ModelResidency(
            self.model,
            list(self.model.blocks),
            embedders=[self.model.embedder],
            pin=self.streams.pinning(budget),
            make_streams=lambda _device: self.streams,
        )
        self.place(streamed, slots)

    def place(self, streamed: int, slots: int = 2) -> None:
        """Stream this many blocks from the next load on."""
        count = len(self.model.blocks)
        self.residency.apply(Placement(count, spread_evenly(streamed, count), min(slots, streamed)))

    def load(self) -> Run:
        """Load the model."""
        self.residency.load(DEVICE)
        return self

    def walk(
        self, skip: Collection[int] = (), *, in_block: Callable[[int], None] = lambda _index: None
    ) -> list[int]:
        """One pass, in which every block is computed; the blocks that came.

        Args:
            skip: blocks to leave out.
            in_block: called while a block is out, after its computation was queued.
        """
        seen = []
        blocks = self.residency.walk(list(self.model.blocks), skip)
        try:
            self.streams.in_loop = True
            for index, block in blocks:
                seen.append(index)
                self.streams.compute(tensors(block), self.masters[index], f"block {index}")
                in_block(index)
        finally:
            self.streams.in_loop = False
            blocks.close()
        return seen

    def is_at_masters(self) -> bool:
        """Whether every weight of the blocks is the host's and unchanged."""
        found = [tensor for block in self.model.blocks for tensor in tensors(block)]
        expected = [master for masters in self.masters for master in masters]
        return [tensor.data_ptr() for tensor in found] == self.pointers and all(
            torch.equal(tensor.float(), master.float())
            for tensor, master in zip(found, expected, strict=True)
        )

    def finished(self) -> list[str]:
        """Run what is queued; what went wrong until now."""
        self.streams.drain()
        return self.streams.violations

"""The tensors of a block as one contiguous buffer, and buffers of pinned host memory that hold them.

One buffer is one copy to the device instead of some thirty, and pinned memory can be copied while the
device computes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ALIGNMENT = 256  # bytes; what device allocators give, so kernels see the alignment they know
PAGE_BYTES = 4096  # the system pins whole pages
MEGABYTE = 1e6
REGISTER_PORTABLE = 1  # cudaHostRegisterPortable: pinned for every device context


@dataclass(frozen=True)
class SlabEntry:
    """Place of one tensor in a slab: ``offset`` and ``nbytes`` in bytes, ``stride`` in elements."""

    offset: int
    nbytes: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    def view(self, buffer: Tensor) -> Tensor:
        """The tensor that lies in a byte buffer."""
        flat = buffer[self.offset : self.offset + self.nbytes].view(self.dtype)
        return flat.as_strided(self.shape, self.stride)


@dataclass(frozen=True)
class SlabLayout:
    """Where the tensors of a block lie in a byte buffer; equal for blocks of the same kind.

    Args:
        entries: in the order of the tensors.
        total_bytes: of the buffer.
    """

    entries: tuple[SlabEntry, ...]
    total_bytes: int

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> SlabLayout:
        """A layout for tensors of any dtype and shape.

        Dense tensors keep their strides; one that repeats or leaves out memory becomes contiguous.
        """
        entries, end = [], 0
        for tensor in tensors:
            stride = tuple(tensor.stride()) if _is_dense(tensor) else _contiguous_stride(tensor.shape)
            entries.append(SlabEntry(end, tensor.nbytes, tuple(tensor.shape), stride, tensor.dtype))
            end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        return cls(tuple(entries), end)

    def views(self, buffer: Tensor) -> list[Tensor]:
        """The tensors that lie in ``buffer``: uint8 ``[>= total_bytes]`` on any device."""
        return [entry.view(buffer) for entry in self.entries]

    def fill(self, buffer: Tensor, tensors: Sequence[Tensor]) -> None:
        """Copy tensors of this layout into a buffer on the host."""
        for view, tensor in zip(self.views(buffer), tensors, strict=True):
            view.copy_(tensor)


class TensorGroup:
    """Tensors that move together: parameter objects, and the masters they point to when this is made.

    Args:
        tensors: parameters and buffers, on the CPU. The masters may be read-only; they are only read.

    Raises:
        ValueError: a tensor is elsewhere.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._tensors = list(tensors)
        self.masters = [tensor.data for tensor in self._tensors]
        elsewhere = {str(master.device) for master in self.masters} - {"cpu"}
        if elsewhere:
            raise ValueError(f"the masters must be on the CPU, some are on {', '.join(sorted(elsewhere))}")
        self.layout = SlabLayout.of(self.masters)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, without the gaps of a slab."""
        return sum(master.nbytes for master in self.masters)

    def point_to(self, values: Sequence[Tensor]) -> None:
        """Let the parameter objects have these values; nothing is copied."""
        for tensor, value in zip(self._tensors, values, strict=True):
            tensor.data = value

    def point_to_masters(self) -> None:
        """Let the parameter objects have their values on the host."""
        self.point_to(self.masters)


@dataclass(frozen=True)
class Pinning:
    """How host memory is pinned.

    Args:
        pin: pins a contiguous byte tensor in place; false when the system or a budget refuses.
        unpin: takes back what ``pin`` did.
    """

    pin: Callable[[Tensor], bool]
    unpin: Callable[[Tensor], object]


def pin_with_cuda(tensor: Tensor) -> bool:
    """Page-lock the memory of a host tensor for CUDA copies; false when the driver refuses."""
    if not torch.cuda.is_available() or tensor.nbytes == 0:
        return False
    if int(_cuda_runtime().cudaHostRegister(tensor.data_ptr(), tensor.nbytes, REGISTER_PORTABLE)) == 0:
        return True
    _clear_cuda_error()
    return False


def unpin_with_cuda(tensor: Tensor) -> None:
    """Take back ``pin_with_cuda``."""
    if int(_cuda_runtime().cudaHostUnregister(tensor.data_ptr())) != 0:
        log.warning("pinned memory could not be given back to the system")
        _clear_cuda_error()


CUDA_PINNING = Pinning(pin_with_cuda, unpin_with_cuda)


class PinnedSlabs:
    """Pinned buffers on the host, one for each block that needs one; made when first asked for.

    When pinning is refused there is no buffer: the masters are copied as they are, which is slower. That
    is said once, and not tried again before ``allow``.

    Args:
        pinning: how to pin.
        name: of the model, for the message.
    """

    def __init__(
        self,
        pinning: Pinning = CUDA_PINNING,
        *,
        name: str = "model",
    ) -> None:
        self._pinning = pinning
        self._name = name
        self._slabs: dict[int, Tensor] = {}
        self._allowed = True
        self._warned = False

    @property
    def nbytes(self) -> int:
        """Bytes of host memory pinned now."""
        return sum(slab.nbytes for slab in self._slabs.values())

    def __contains__(self, index: int) -> bool:
        return index in self._slabs

    def may_make(self, index: int) -> bool:
        """Whether asking for the slab of this block would make one."""
        return self._allowed and index not in self._slabs

    def allow(self) -> None:
        """Try pinning again."""
        self._allowed = True

    def get(self, index: int, group: TensorGroup) -> Tensor | None:
        """The filled slab of block ``index``, or ``None`` when pinning is refused."""
        if self.may_make(index):
            self._make(index, group)
        return self._slabs.get(index)

    def drop(self, index: int) -> int:
        """Unpin and free one slab; no copy from it may be in flight. Returns the bytes."""
        slab = self._slabs.pop(index, None)
        if slab is None:
            return 0
        self._pinning.unpin(slab)
        return slab.nbytes

    def release(self, wanted: int, order: Iterable[int]) -> int:
        """Drop slabs in this order until ``wanted`` bytes are free, and make none before ``allow``."""
        self._allowed = False
        freed = 0
        for index in order:
            if freed >= wanted:
                break
            freed += self.drop(index)
        return freed

    def close(self) -> None:
        """Drop every slab."""
        for index in list(self._slabs):
            self.drop(index)

    def _make(self, index: int, group: TensorGroup) -> None:
        nbytes = group.layout.total_bytes
        try:
            slab = _host_buffer(nbytes)
        except RuntimeError as error:  # what torch raises when host memory is used up
            log.debug("%s: %s", self._name, error)
            self._refused(nbytes)
            return
        if not self._pinning.pin(slab):
            self._refused(nbytes)
            return
        self._slabs[index] = slab  # before filling: an interrupted fill must not lose a pinned buffer
        try:
            group.layout.fill(slab, group.masters)
        except BaseException:
            self.drop(index)
            raise

    def _refused(self, nbytes: int) -> None:
        self._allowed = False
        if self._warned:
            return
        self._warned = True
        log.warning(
            "%s: pinning another %.1f MB of host memory was refused after %.1f MB; "
            "the other streamed blocks are copied from pageable memory, which is slower",
            self._name,
            nbytes / MEGABYTE,
            self.nbytes / MEGABYTE,
        )


@torch.inference_mode(False)  # buffers are written to in and out of inference mode
def _host_buffer(nbytes: int) -> Tensor:
    """Host bytes of exactly this size, whose pages belong to no other buffer."""
    pages = -(-nbytes // PAGE_BYTES) + 1
    whole = torch.empty(pages * PAGE_BYTES, dtype=torch.uint8, device="cpu")
    start = -whole.data_ptr() % PAGE_BYTES
    return whole[start : start + nbytes]


def _is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill a stretch of memory once each, in some order of the dimensions."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return tensor.numel() > 0


def _contiguous_stride(shape: Sequence[int]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _cuda_runtime() -> Any:
    """CUDA's runtime; torch declares it as optional, and it is there when CUDA is available."""
    return torch.cuda.cudart()


def _clear_cuda_error() -> None:
    """Take the refusal out of CUDA's last-error slot, where the next kernel launch would find it."""
    try:
        torch.zeros(1, device="cuda").add_(1)
    except RuntimeError as error:
        log.debug("cleared: %s", error)

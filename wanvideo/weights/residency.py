"""Where a module's weights are: masters on the host, copies on a device while it is used."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")


def copy_to(tensor: Tensor, device: torch.device) -> Tensor:
    """A copy of a host tensor on a device."""
    return tensor.to(device, copy=True)


class Residency:
    """Brings one module's weights to a device and drops them there again.

    The tensors the module has when this object is made are the masters; usually they are views on mapped
    files. Loading points the parameters to copies, unloading points them back: frozen weights never
    travel from the device to the host, and what was changed on the device is gone. Parameter objects stay
    the same, so compiled graphs and other references stay valid.

    The unit is the whole module.

    Args:
        module: on the CPU, complete. Parameters it gets later are not managed.
        copy: makes the device copy of one tensor.
    """

    def __init__(
        self, module: nn.Module, *, copy: Callable[[Tensor, torch.device], Tensor] = copy_to
    ) -> None:
        self.module = module
        self._copy = copy
        self._device = CPU
        self._masters = [(tensor, tensor.data) for tensor in (*module.parameters(), *module.buffers())]
        elsewhere = {str(master.device) for _, master in self._masters} - {"cpu"}
        if elsewhere:
            raise ValueError(f"the masters must be on the CPU, some are on {', '.join(sorted(elsewhere))}")

    @property
    def device(self) -> torch.device:
        """Where the weights are now."""
        return self._device

    @property
    def total_bytes(self) -> int:
        """Bytes on a device when the module is loaded."""
        return sum(master.nbytes for _, master in self._masters)

    @property
    def resident_bytes(self) -> int:
        """Bytes on a device now; 0 while the weights are the masters."""
        return 0 if self._device == CPU else self.total_bytes

    def load(self, device: torch.device | str) -> int:
        """Bring every weight to `device`; nothing happens when it is there or when `device` is the CPU.

        Returns:
            The bytes copied.

        Raises:
            torch.OutOfMemoryError: no room; nothing is left on the device.
        """
        device = _indexed(torch.device(device))
        if device == self._device:
            return 0
        self.unload()
        if device == CPU:
            return 0
        try:
            for tensor, master in self._masters:
                tensor.data = self._copy(master, device)
        except BaseException:
            self._point_to_masters()
            raise
        self._device = device
        return self.total_bytes

    def unload(self) -> int:
        """Point the weights to the masters again. Returns the bytes freed on the device."""
        freed = self.resident_bytes
        self._point_to_masters()
        self._device = CPU
        return freed

    def _point_to_masters(self) -> None:
        for tensor, master in self._masters:
            tensor.data = master


def _indexed(device: torch.device) -> torch.device:
    """`cuda` is `cuda:0` or whichever is current, so that both spellings compare equal."""
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device

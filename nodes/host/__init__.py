"""The only door to ComfyUI: devices, files, memory manager, progress and core models.

Nothing outside this package imports ``comfy*``, ``folder_paths``, ``server`` or ``comfy_api``.
"""

from comfy_api.latest import ComfyExtension, io

from .devices import (
    check_interrupt,
    compute_device,
    intermediate_device,
    is_out_of_memory,
    offload_device,
    text_encoder_device,
    text_encoder_offload_device,
    vae_device,
    vae_offload_device,
)
from .files import check_file, file_fingerprint, list_files, resolve_file, user_folder
from .images import resize_images
from .memory import ManagedModel, Residency, evict, load
from .progress import Progress, say

__all__ = [
    "ComfyExtension",
    "ManagedModel",
    "Progress",
    "Residency",
    "check_file",
    "check_interrupt",
    "compute_device",
    "evict",
    "file_fingerprint",
    "intermediate_device",
    "io",
    "is_out_of_memory",
    "list_files",
    "load",
    "offload_device",
    "resize_images",
    "resolve_file",
    "say",
    "text_encoder_device",
    "text_encoder_offload_device",
    "user_folder",
    "vae_device",
    "vae_offload_device",
]

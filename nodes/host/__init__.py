"""The only door to ComfyUI: devices, files, memory manager, progress and core models.

Nothing outside this package imports ``comfy*``, ``folder_paths``, ``server`` or ``comfy_api``.
"""

from comfy_api.latest import ComfyExtension, io

from .combo_output import ComboOutput
from .core_models import (
    CoreVae,
    comfy_attention,
    encode_with_clip,
    is_core_clip,
    is_core_vae,
    rows_of_conditioning,
)
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
from .files import GGUF, check_file, file_fingerprint, list_files, resolve_file, user_folder
from .images import resize_images
from .memory import (
    BlockResidency,
    ManagedBlocks,
    ManagedModel,
    Residency,
    evict,
    free_for,
    load,
    make_room,
    preferred_residency,
    reserved_bytes,
)
from .model_sampling import SigmasOnlyModel
from .pinning import pinning_for
from .progress import Progress, say

__all__ = [
    "GGUF",
    "BlockResidency",
    "ComboOutput",
    "ComfyExtension",
    "CoreVae",
    "ManagedBlocks",
    "ManagedModel",
    "Progress",
    "Residency",
    "SigmasOnlyModel",
    "check_file",
    "check_interrupt",
    "comfy_attention",
    "compute_device",
    "encode_with_clip",
    "evict",
    "file_fingerprint",
    "free_for",
    "intermediate_device",
    "io",
    "is_core_clip",
    "is_core_vae",
    "is_out_of_memory",
    "list_files",
    "load",
    "make_room",
    "offload_device",
    "pinning_for",
    "preferred_residency",
    "reserved_bytes",
    "resize_images",
    "resolve_file",
    "rows_of_conditioning",
    "say",
    "text_encoder_device",
    "text_encoder_offload_device",
    "user_folder",
    "vae_device",
    "vae_offload_device",
]

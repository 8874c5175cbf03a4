"""Devices, interrupts and out-of-memory errors, as ComfyUI sees them at the time of the call."""

from __future__ import annotations

import comfy.model_management as management
import torch


def compute_device() -> torch.device:
    """Where transformers run."""
    return management.get_torch_device()


def offload_device() -> torch.device:
    """Where a transformer waits."""
    return management.unet_offload_device()


def text_encoder_device() -> torch.device:
    """Where text encoders run."""
    return management.text_encoder_device()


def text_encoder_offload_device() -> torch.device:
    """Where a text encoder waits."""
    return management.text_encoder_offload_device()


def vae_device() -> torch.device:
    """Where VAEs run."""
    return management.vae_device()


def vae_offload_device() -> torch.device:
    """Where a VAE waits."""
    return management.vae_offload_device()


def intermediate_device() -> torch.device:
    """Where node outputs are kept."""
    return management.intermediate_device()


def check_interrupt() -> None:
    """Stop the run here when the user asked for it.

    Raises:
        InterruptProcessingException: a ``BaseException``, so that no handler of ours can swallow it.
    """
    management.throw_exception_if_processing_interrupted()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that the device or the host ran out of memory."""
    return isinstance(error, MemoryError) or management.is_oom(error)

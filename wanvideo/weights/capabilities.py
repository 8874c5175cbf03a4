"""What a Wan transformer can take as input, told from its tensors.

A file has a set of capabilities, not one type. The rules are data: a family adds its own to the tuple it
passes to `detect`. What shapes cannot say (Phantom, ATI, MAGREF, high or low noise expert, ...) is chosen
by the node that prepares the input.

What the names mean, beyond those of families whose weights stand in the file (C is 16 latent channels of
Wan 2.1 or 48 of Wan 2.2):

- "text": takes text.
- "t2v": the noise (C channels) is all that enters the patch embedding.
- "i2v": noise C, mask 4, encoded pictures C.
- "clean first frame": the first latent frame may be given as it is, at timestep 0.
- "clip image": cross-attention to CLIP tokens of a picture; "first and last frame": of two, with positions.
- "fun control": noise C, control video C, then pictures C (Wan 2.1) or mask 4 and pictures C (Wan 2.2).
- "fun reference": tokens of a reference picture before those of the video.
- "fun camera": camera rays added to the tokens; the channels are noise 16 and pictures 16 in Wan 2.1, those
  of "i2v" in Wan 2.2.
- "control lora": a LoRA for a control video was merged: noise 16, control video 16.
- "unilumos": noise 16, foreground 16, background 16; "minimax remover": noise 16, masked video 16, mask 16,
  and no text; "lucy edit": noise 48, source video 48.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ..transformer.config import WanConfig
from .checkpoint import Checkpoint

LATENT_21, LATENT_22 = 16, 48  # latent channels of the Wan 2.1 and Wan 2.2 VAE
MASK = 4  # mask channels beside the image latent of image-to-video models
CAMERA_KEY = "control_adapter.conv.weight"
_TRIPLE_21 = 3 * LATENT_21, LATENT_21


@dataclass(frozen=True)
class Capability:
    """One thing a transformer can do.

    Args:
        name: as nodes and messages say it.
        is_present: asked with the file in official key names and its sizes.
    """

    name: str
    is_present: Callable[[Checkpoint, WanConfig], bool]


def with_key(name: str, *keys: str) -> Capability:
    """A capability shown by the presence of any of `keys`."""
    return Capability(name, lambda checkpoint, _config: any(key in checkpoint for key in keys))


def with_channels(name: str, *pairs: tuple[int, int]) -> Capability:
    """A capability shown by (channels in, channels out) of the transformer."""
    return Capability(name, lambda _checkpoint, sizes: (sizes.in_channels, sizes.out_channels) in pairs)


def _channels(sizes: WanConfig) -> tuple[int, int]:
    return sizes.in_channels, sizes.out_channels


def _is_fun_control(_checkpoint: Checkpoint, sizes: WanConfig) -> bool:
    if _channels(sizes) == _TRIPLE_21:  # without the image branch it is UniLumos or MiniMax-Remover
        return sizes.has_image_branch
    return _channels(sizes) in ((3 * LATENT_21 + MASK, LATENT_21), (3 * LATENT_22 + MASK, LATENT_22))


def _is_control_lora(checkpoint: Checkpoint, sizes: WanConfig) -> bool:
    is_wider = _channels(sizes) == (2 * LATENT_21, LATENT_21)
    return is_wider and not sizes.has_image_branch and CAMERA_KEY not in checkpoint and _has_text(checkpoint)


def _is_unilumos(checkpoint: Checkpoint, sizes: WanConfig) -> bool:
    return _channels(sizes) == _TRIPLE_21 and not sizes.has_image_branch and _has_text(checkpoint)


def _is_minimax_remover(checkpoint: Checkpoint, sizes: WanConfig) -> bool:
    has_texts = _has_text(checkpoint) or "blocks.0.cross_attn.q.weight" in checkpoint
    return _channels(sizes) == _TRIPLE_21 and not has_texts


def _has_text(checkpoint: Checkpoint) -> bool:
    return "text_embedding.0.weight" in checkpoint


CAPABILITIES: tuple[Capability, ...] = (
    Capability("text", lambda checkpoint, _sizes: _has_text(checkpoint)),
    with_channels("t2v", (LATENT_21, LATENT_21), (LATENT_22, LATENT_22)),
    # Mask and image latent follow the noise. The 5B models keep the first frame clean, with those or without.
    with_channels("i2v", (2 * LATENT_21 + MASK, LATENT_21), (2 * LATENT_22 + MASK, LATENT_22)),
    with_channels(
        "clean first frame",
        (LATENT_22, LATENT_22),
        (2 * LATENT_22 + MASK, LATENT_22),
        (3 * LATENT_22 + MASK, LATENT_22),
    ),
    Capability("clip image", lambda _checkpoint, sizes: sizes.has_image_branch),
    with_key("first and last frame", "img_emb.emb_pos"),
    Capability("fun control", _is_fun_control),
    with_key("fun reference", "ref_conv.weight"),
    with_key("fun camera", CAMERA_KEY),
    Capability("control lora", _is_control_lora),
    Capability("unilumos", _is_unilumos),
    Capability("minimax remover", _is_minimax_remover),
    with_channels("lucy edit", (2 * LATENT_22, LATENT_22)),
    with_key("vace", "vace_patch_embedding.weight", "vace_blocks.0.after_proj.weight"),
    with_key("fps embedding", "fps_embedding.weight"),
    with_key("recammaster", "blocks.0.cam_encoder.weight"),
    with_key("stand-in", "blocks.0.self_attn.q_loras.down.weight"),
    with_key("lynx reference", "blocks.0.self_attn.ref_adapter.to_k_ref.weight"),
    with_key(
        "lynx identity",
        "blocks.0.cross_attn.ip_adapter.registers",
        "blocks.0.cross_attn.ip_adapter.to_v_ip.weight",
    ),
    with_key("bindweave", "text_projection.0.weight", "condition_embedder.text_projector.linear_1.weight"),
    with_key("s2v", "casual_audio_encoder.encoder.final_linear.weight", "audio_injector.injector.0.k.weight"),
    with_key("humo", "audio_proj.audio_proj_glob_1.layer.weight", "audio_proj.audio_proj_glob_1.layer.bias"),
    with_key("animate", "pose_patch_embedding.weight", "face_adapter.fuser_blocks.0.k_norm.weight"),
    with_key("scail", "patch_embedding_pose.weight"),
    with_key("scail 2", "patch_embedding_mask.weight"),
    with_key("wan dancer", "patch_embedding_global.weight"),
    with_key("multitalk", "blocks.0.audio_cross_attn.q_linear.weight", "audio_proj.proj1.weight"),
    with_key("steadydancer", "condition_embedding_align.cross_attn.in_proj_bias"),
    with_key("one-to-all", "image_to_cond.conv_in.bias"),
    with_key("realisdance", "add_conv_in.weight"),
    with_key("mtv crafter", "blocks.0.motion_attn.k.weight"),
    with_key(
        "longvie",
        "blocks.0.control_blocks_dense.self_attn.q.weight",
        "control_blocks_dense.0.self_attn.q.weight",
    ),
    with_key("ovi", "blocks.0.cross_attn.k_fusion.weight"),
    with_key("flashvsr", "LQ_proj_in.norm1.gamma"),
)


def capabilities_of(
    checkpoint: Checkpoint, sizes: WanConfig, rules: tuple[Capability, ...] = CAPABILITIES
) -> frozenset[str]:
    """Names of all capabilities the file has."""
    return frozenset(rule.name for rule in rules if rule.is_present(checkpoint, sizes))

"""What a model file is, told from its key names: for messages, and to refuse a file in the wrong place."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..errors import ModelFileError
from .checkpoint import Checkpoint

_KEYS_SHOWN = 3
_LORA_ENDINGS = (
    ".lora_A.weight",
    ".lora_A.default.weight",
    ".lora_down.weight",
    ".lokr_w1",
    ".lokr_w1_a",
    ".hada_w1_a",
    ".oft_blocks",
    ".diff",
    ".diff_b",
)


class KeyNames:
    """The names of a file, asked without regard to a prefix in front of them."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    @cached_property
    def _tails(self) -> dict[str, str]:
        """Every dotted ending of every key, and the key."""
        tails: dict[str, str] = {}
        for key in self.checkpoint:
            parts = key.split(".")
            for start in range(len(parts)):
                tails.setdefault(".".join(parts[start:]), key)
        return tails

    def has(self, *names: str) -> bool:
        """Whether the file has all of `names`, each at the end of some key."""
        return all(name in self._tails for name in names)

    def has_any(self, *names: str) -> bool:
        """Whether the file has one of `names`."""
        return any(name in self._tails for name in names)

    def has_ending(self, *endings: str) -> bool:
        """Whether some key ends in one of `endings`, in the middle of a part or not."""
        return any(key.endswith(endings) for key in self.checkpoint)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor whose key ends in `name`; empty when there is none."""
        return self.checkpoint.shape(self._tails[name]) if name in self._tails else ()


@dataclass(frozen=True)
class FileKind:
    """A kind of model file.

    Args:
        name: as messages say it, without article.
        loader: display name of the node that loads it; None when no node of the pack does.
        matches: whether a file is of this kind; kinds are asked in order.
    """

    name: str
    loader: str | None
    matches: Callable[[KeyNames], bool]


def _is_wan_transformer(names: KeyNames) -> bool:
    first_query = names.has_any(
        "blocks.0.self_attn.q.weight", "blocks.0.attn1.to_q.weight", "blocks.0.self_attn.q.weight._data"
    )
    return first_query and names.has_any("patch_embedding.weight", "head.modulation", "head.head.weight")


def _is_wan21_vae(names: KeyNames) -> bool:
    return names.has("decoder.middle.0.residual.0.gamma", "decoder.head.0.gamma")


def _is_diffusers_vae(names: KeyNames, latent_channels: int) -> bool:
    channels = names.shape("post_quant_conv.weight")[:1]
    return names.has("decoder.mid_block.resnets.0.norm1.gamma") and channels == (latent_channels,)


def _is_hf_umt5(names: KeyNames) -> bool:
    """T5 has its relative table in the first block only, UMT5 in every block (and a vocabulary of 256384)."""
    first = "block.0.layer.0.SelfAttention"
    if not names.has(f"{first}.q.weight"):
        return False
    has_second = names.has("block.1.layer.0.SelfAttention.q.weight")
    return not has_second or names.has("block.1.layer.0.SelfAttention.relative_attention_bias.weight")


def _is_gguf_umt5(names: KeyNames) -> bool:
    """llama.cpp's names; the same difference from T5."""
    second = "enc.blk.1.attn_q.weight", "enc.blk.1.attn_rel_b.weight"
    return names.has("token_embd.weight", "enc.blk.0.attn_rel_b.weight") and (
        not names.has(second[0]) or names.has(second[1])
    )


def _is_taehv(names: KeyNames) -> bool:
    shape = names.shape("decoder.1.weight")
    return names.has("decoder.22.bias") and len(shape) == 4 and shape[1] in (16, 48)


def _is_longcat(names: KeyNames) -> bool:
    """In its own names, or in the Wan-like ones of repackaged files; the feed-forward is its own in both."""
    return names.has("blocks.0.ffn.w1.weight") and names.has_any(
        "blocks.0.attn.qkv.weight", "blocks.0.self_attn.q.weight"
    )


def _is_ovi_audio(names: KeyNames) -> bool:
    """The video half has these keys as well, but the patches of a video."""
    return names.has("blocks.0.cross_attn.k_fusion.weight") and not names.has("patch_embedding.weight")


def _is_lynx_resampler(names: KeyNames) -> bool:
    return names.has("latents", "layers.0.0.to_kv.weight", "norm_out.weight")


WAN_TRANSFORMER = FileKind("Wan transformer", "WanVideo Model Loader", _is_wan_transformer)
WAN21_VAE = FileKind(
    "Wan 2.1 VAE", "WanVideo VAE Loader", lambda names: _is_wan21_vae(names) or _is_diffusers_vae(names, 16)
)
WAN22_VAE = FileKind(
    "Wan 2.2 VAE",
    "WanVideo VAE Loader",
    lambda names: (
        names.has("decoder.upsamples.0.upsamples.0.residual.2.weight") or _is_diffusers_vae(names, 48)
    ),
)
UMT5 = FileKind(
    "UMT5 text encoder",
    "WanVideo T5 Text Encoder Loader",
    lambda names: (
        names.has("token_embedding.weight", "blocks.0.attn.q.weight")
        or _is_hf_umt5(names)
        or _is_gguf_umt5(names)
    ),
)
LORA = FileKind("LoRA", "WanVideo Lora Select", lambda names: names.has_ending(*_LORA_ENDINGS))
UNKNOWN = FileKind("file of an unknown kind", None, lambda _names: True)

KINDS: tuple[FileKind, ...] = (
    # Side networks first: several carry whole Wan blocks.
    FileKind(
        "Uni3C controlnet",
        "WanVideo Uni3C Controlnet Loader",
        lambda names: names.has("controlnet_patch_embedding.weight"),
    ),
    FileKind(
        "Wan controlnet",
        "WanVideo Controlnet Loader",
        lambda names: names.has("control_encoder.0.0.weight", "controlnet_blocks.0.weight"),
    ),
    FileKind("LongCat-Video transformer", None, _is_longcat),
    FileKind("Wan audio transformer (Ovi)", None, _is_ovi_audio),
    FileKind("Wan-Animate-2 transformer", None, lambda names: names.has("blocks.0.block.self_attn.q.weight")),
    WAN_TRANSFORMER,
    FileKind(
        "VACE module",
        "WanVideo VACE Module Select",
        lambda names: names.has_any("vace_blocks.0.after_proj.weight", "vace_blocks.0.proj_out.weight"),
    ),
    FileKind(
        "FantasyPortrait module",
        "FantasyPortrait Model Loader",
        lambda names: any(key.startswith("mouth_proj_model.") for key in names.checkpoint),
    ),
    FileKind(
        "FantasyTalking module",
        "FantasyTalking Model Loader",
        lambda names: names.has_any("proj_model.proj.weight", "cross_attn.processor.k_proj.weight"),
    ),
    FileKind(
        "MultiTalk or InfiniteTalk module",
        "Multi/InfiniteTalk Model Loader",
        lambda names: names.has("audio_proj.proj1.weight"),
    ),
    FileKind(
        "Stand-In adapter", "WanVideo Lora Select", lambda names: names.has("self_attn.q_loras.down.weight")
    ),
    FileKind(
        "Lynx module",
        "WanVideo Extra Model Select",
        lambda names: names.has_any("to_k_ref.weight", "ip_adapter.registers", "to_v_ip.weight"),
    ),
    FileKind("Lynx resampler", "Load Lynx Resampler", _is_lynx_resampler),
    FileKind(
        "MTV-Crafter module",
        "WanVideo Extra Model Select",
        lambda names: names.has("blocks.0.motion_attn.k.weight"),
    ),
    FileKind(
        "FlashVSR projector",
        "WanVideo Extra Model Select",
        lambda names: names.has("norm1.gamma", "linear_layers.0.weight"),
    ),
    LORA,
    WAN22_VAE,
    WAN21_VAE,
    FileKind(
        "FlashVSR decoder", "WanVideo FlashVSR Decoder Loader", lambda names: _is_flashvsr_decoder(names)
    ),
    FileKind("tiny Wan autoencoder (TAEHV)", "WanVideo Tiny VAE Loader", _is_taehv),
    UMT5,
    FileKind(
        "T5 text encoder of another model (not UMT5)",
        None,
        lambda names: names.has_any("block.0.layer.0.SelfAttention.q.weight", "enc.blk.0.attn_q.weight"),
    ),
    FileKind(
        "language model (GGUF)",
        None,
        lambda names: (
            names.has("token_embd.weight") and names.has_any("blk.0.attn_q.weight", "blk.0.attn_norm.weight")
        ),
    ),
    FileKind(
        "CLIP image encoder",
        "WanVideo CLIP Text Encoder Loader",
        lambda names: (
            names.has_any(
                "visual.transformer.0.attn.to_qkv.weight",
                "vision_model.encoder.layers.0.self_attn.q_proj.weight",
                "visual.transformer.resblocks.0.attn.in_proj_weight",
            )
            or names.has("cls_embedding", "transformer.0.attn.to_qkv.weight")
            or names.has("embeddings.class_embedding", "encoder.layers.0.self_attn.q_proj.weight")
        ),
    ),
    FileKind(
        "CLIP text encoder (Wan uses UMT5)",
        None,
        lambda names: names.has("text_model.encoder.layers.0.self_attn.q_proj.weight"),
    ),
    FileKind(
        "wav2vec2 audio encoder",
        "Wav2vec2 Model Loader",
        lambda names: names.has("feature_extractor.conv_layers.0.conv.weight"),
    ),
    FileKind(
        "Whisper audio encoder",
        "Whisper Model Loader",
        lambda names: names.has("encoder.layers.0.self_attn.q_proj.weight", "encoder.conv1.weight"),
    ),
    FileKind(
        "Flux or HunyuanVideo transformer",
        None,
        lambda names: names.has_ending("img_attn.qkv.weight", "img_attn_qkv.weight"),
    ),
    FileKind("Stable Diffusion model", None, lambda names: names.has("input_blocks.0.0.weight")),
    FileKind("Stable Diffusion VAE", None, lambda names: names.has("decoder.mid.block_1.conv1.weight")),
    FileKind(
        "LTX or Qwen transformer",
        None,
        lambda names: (
            names.has("transformer_blocks.0.attn1.to_q.weight")
            or names.has("transformer_blocks.0.img_mlp.net.0.proj.weight")
        ),
    ),
    UNKNOWN,
)


def _is_flashvsr_decoder(names: KeyNames) -> bool:
    return names.shape("decoder.1.weight")[1:2] == (784,)


def kind_of(checkpoint: Checkpoint) -> FileKind:
    """The kind of a file; `UNKNOWN` when it is none of the known ones."""
    names = KeyNames(checkpoint)
    return next(kind for kind in KINDS if kind.matches(names))


def wrong_kind(checkpoint: Checkpoint, expected: str) -> ModelFileError:
    """The error for a file in the wrong place.

    Args:
        checkpoint: the file that was given.
        expected: what the place takes, with article ("a Wan VAE").
    """
    kind = kind_of(checkpoint)
    if kind is UNKNOWN:
        shown = ", ".join(list(checkpoint)[:_KEYS_SHOWN])
        return ModelFileError(
            checkpoint.path, f"is not {expected}; its kind is unknown (it holds {shown}, ...)"
        )
    advice = f"load it with {kind.loader}" if kind.loader else "no node of this pack reads it"
    return ModelFileError(checkpoint.path, f"is not {expected}: it looks like a {kind.name}; {advice}")

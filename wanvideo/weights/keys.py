"""Key names of Wan transformers: prefixes off, the diffusers layout to the official one.

Official names are those of Wan2.1 `wan/modules/model.py`; the diffusers names those of
`WanTransformer3DModel`. Both tables below are bijections, so the way back exists as well.
"""

from collections.abc import Callable, Iterable

from .checkpoint import Checkpoint

# A key that every Wan transformer has, in both layouts, and one of a VACE module file.
OFFICIAL_LANDMARK = "blocks.0.self_attn.q.weight"
DIFFUSERS_LANDMARK = "blocks.0.attn1.to_q.weight"
MODULE_LANDMARKS = ("vace_blocks.0.self_attn.q.weight", "vace_blocks.0.attn1.to_q.weight")
LANDMARKS = (OFFICIAL_LANDMARK, DIFFUSERS_LANDMARK, *MODULE_LANDMARKS)

# Where one file holds two networks of the same kind, these are not the video transformer.
_SECOND_CHOICE = ("audio_model.", "ema.", "model_ema.")
# Parts of an all-in-one checkpoint that other loaders read.
_OTHER_PARTS = ("first_stage_model.", "vae.", "cond_stage_model.", "text_encoders.", "conditioner.")

_TOP_LEVEL = {
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "head.modulation": "scale_shift_table",
    "head.head": "proj_out",
}
_IN_A_BLOCK = {
    "modulation": "scale_shift_table",
    "self_attn.q": "attn1.to_q",
    "self_attn.k": "attn1.to_k",
    "self_attn.v": "attn1.to_v",
    "self_attn.o": "attn1.to_out.0",
    "self_attn.norm_q": "attn1.norm_q",
    "self_attn.norm_k": "attn1.norm_k",
    "cross_attn.q": "attn2.to_q",
    "cross_attn.k": "attn2.to_k",
    "cross_attn.v": "attn2.to_v",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.norm_q": "attn2.norm_q",
    "cross_attn.norm_k": "attn2.norm_k",
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
    # The two layouts number the norms by position: the affine one before cross-attention changes places
    # with the one before the feed-forward, which has no weights of its own but may have a LoRA difference.
    "norm3": "norm2",
    "norm2": "norm3",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}
_IN_A_VACE_BLOCK = {**_IN_A_BLOCK, "before_proj": "proj_in", "after_proj": "proj_out"}
# What older quantised files call the scales of a layer.
_CURRENT_SCALES = {"scale_weight": "weight_scale", "scale_input": "input_scale"}
# A norm of queries that the image branch of diffusers has and never uses.
_UNUSED_IN_DIFFUSERS = "attn2.norm_added_q"


def _reversed(table: dict[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in table.items()}


_TO_DIFFUSERS = {"": _TOP_LEVEL, "blocks": _IN_A_BLOCK, "vace_blocks": _IN_A_VACE_BLOCK}
_TO_OFFICIAL = {place: _reversed(table) for place, table in _TO_DIFFUSERS.items()}


def find_prefix(keys: Iterable[str], landmarks: Iterable[str] = LANDMARKS) -> str | None:
    """What stands before the transformer's own names, found by a landmark at the end of any key.

    Args:
        keys: all keys of the file.
        landmarks: tried in order; the first that occurs decides.

    Returns:
        The prefix with its dot, "" when there is none, None when no key is a landmark.
    """
    names = list(keys)
    for landmark in landmarks:
        found = {name[: -len(landmark)] for name in names if name.endswith(landmark)}
        found = {prefix for prefix in found if not prefix or prefix.endswith(".")}
        if found:
            return min(found, key=lambda prefix: (prefix.endswith(_SECOND_CHOICE), len(prefix), prefix))
    return None


def to_official(key: str) -> str | None:
    """A diffusers key under its official name; unknown keys stay, unused ones are None."""
    return None if f".{_UNUSED_IN_DIFFUSERS}." in key else _translate(key, _TO_OFFICIAL)


def to_diffusers(key: str) -> str:
    """An official key under its diffusers name; unknown keys stay."""
    return _translate(key, _TO_DIFFUSERS)


def _translate(key: str, tables: dict[str, dict[str, str]]) -> str:
    parts = key.split(".")
    in_block = len(parts) > 2 and parts[0] in tables and parts[0] and parts[1].isdigit()
    kept, rest = (parts[:2], parts[2:]) if in_block else ([], parts)
    table = tables[parts[0] if in_block else ""]
    for length in range(len(rest), 0, -1):
        name = table.get(".".join(rest[:length]))
        if name is not None:
            return ".".join([*kept, name, *rest[length:]])
    return key


def with_current_scale_name(key: str) -> str:
    """The scales of older quantised files under the names newer ones have; other keys stay."""
    path, _, leaf = key.rpartition(".")
    return f"{path}.{_CURRENT_SCALES[leaf]}" if path and leaf in _CURRENT_SCALES else key


def canonical(checkpoint: Checkpoint) -> Checkpoint:
    """The file's transformer under official names without prefix; any other file as it is.

    Scales get their current names. Keys without the prefix are kept (markers such as `scaled_fp8`), except
    the VAE and the text encoders of an all-in-one checkpoint. Applying it twice is the same as once.
    """
    prefix = find_prefix(checkpoint.keys())
    if prefix is None:
        return checkpoint
    is_diffusers = any(
        prefix + landmark in checkpoint for landmark in (DIFFUSERS_LANDMARK, MODULE_LANDMARKS[1])
    )
    translate: Callable[[str], str | None] = to_official if is_diffusers else str
    other_prefixes = _other_networks(checkpoint, prefix)
    is_current = all(with_current_scale_name(key) == key for key in checkpoint)
    if not prefix and not is_diffusers and not other_prefixes and is_current:
        return checkpoint

    def rename(key: str) -> str | None:
        if key.startswith(other_prefixes):
            return None
        name = translate(key[len(prefix) :]) if key.startswith(prefix) else key
        return None if name is None else with_current_scale_name(name)

    return checkpoint.renamed(rename)


def _other_networks(checkpoint: Checkpoint, prefix: str) -> tuple[str, ...]:
    candidates = (*_OTHER_PARTS, *_SECOND_CHOICE)
    return tuple(
        other for other in candidates if other != prefix and any(key.startswith(other) for key in checkpoint)
    )

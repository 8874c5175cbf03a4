"""A UMT5 file with its tokenizer, ready to encode prompts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..conditioning.prompts import WeightedPrompt, clean_prompt, parse_weights
from ..errors import ModelFileError
from ..weights.assemble import assign
from ..weights.checkpoint import Checkpoint
from ..weights.formats.scaled import SCALED
from ..weights.linear import WanLinear
from .tokenizer import MAX_TOKENS, Tokenizer, Tokens, find_tokenizer
from .umt5 import UMT5Encoder
from .umt5_keys import official_umt5, read_config

log = logging.getLogger(__name__)

FP8 = torch.float8_e4m3fn
_FP8_LIMIT = torch.finfo(FP8).max
_EOS_ONLY = ""


@dataclass(frozen=True)
class TextEncoder:
    """UMT5 and its tokenizer.

    Args:
        module: the network; move it to a device to keep it there, else its blocks travel one by one.
        tokenizer: turns cleaned text into ids.
        dtype: compute precision, also that of the result.
    """

    module: UMT5Encoder
    tokenizer: Tokenizer
    dtype: torch.dtype

    @property
    def width(self) -> int:
        """Width of the embeddings; a transformer's text embedding takes exactly this."""
        return self.module.config.width

    @torch.no_grad()
    def encode(
        self,
        prompts: Sequence[str],
        *,
        device: torch.device | str,
        check: Callable[[], None] = lambda: None,
    ) -> list[Tensor]:
        """Clean, weight, tokenize and encode prompts. Equal prompts are encoded once.

        A token of weight w becomes ``e + w * (x - e)``, e being the empty prompt's encoding (one token, zeros
        after it), as ComfyUI does it.

        Args:
            prompts: as typed, `(text:1.2)` weights included; separators are `split_prompts`' business.
            device: where to compute.
            check: called before every block; raises to stop.

        Returns:
            Per prompt ``[L, width]`` on the CPU in the compute dtype, L its tokens with the end token.
        """
        parsed = [parse_weights(clean_prompt(prompt)) for prompt in prompts]
        texts = dict.fromkeys(prompt.text for prompt in parsed)
        if any(prompt.spans for prompt in parsed):
            texts[_EOS_ONLY] = None
        tokens = {text: self.tokenizer.encode(text) for text in texts}
        for found in tokens.values():
            _warn_when_cut(found)
        device = torch.empty(0, device=device).device  # "cuda" as "cuda:0", the way weights name it
        rows = self.module(
            [found.ids for found in tokens.values()], dtype=self.dtype, device=device, check=check
        )
        encoded = {text: row.cpu() for text, row in zip(tokens, rows, strict=True)}
        return [
            _weighted(encoded[prompt.text], encoded.get(_EOS_ONLY), prompt, tokens[prompt.text]).to(
                self.dtype
            )
            for prompt in parsed
        ]


def load_umt5(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype,
    storage_dtype: torch.dtype | None = None,
    other_files: Iterable[Path] = (),
) -> TextEncoder:
    """Load a UMT5 encoder in either key style, dense or fp8 (plain or scaled).

    Weights stay views on the file wherever they are stored no wider than `dtype`; a linear layer casts when
    it is used, with the same result as casting at once.

    Args:
        checkpoint: the opened file.
        dtype: compute precision: float32, bfloat16 or float16.
        storage_dtype: float8_e4m3fn quantises the linear layers (one scale per row; norms, position tables
            and the embedding table stay as they are); None keeps the file's storage.
        other_files: text encoder files that may lend a tokenizer.

    Raises:
        ModelFileError: another kind of file, damaged weights, no tokenizer.
    """
    official = official_umt5(checkpoint)
    config = read_config(official)
    tokenizer = find_tokenizer(checkpoint, other_files)
    if tokenizer.pieces > config.vocabulary:
        raise ModelFileError(
            tokenizer.path,
            f"its tokenizer has {tokenizer.pieces} pieces, the text encoder {checkpoint.path.name} only "
            f"{config.vocabulary}; they do not belong together",
        )
    with torch.device("meta"):
        module = UMT5Encoder(config)
    _expect_scales(module, official)
    widest = dtype if storage_dtype is None else torch.float32  # what will be quantised is not rounded twice
    assign(module, official, dtype_of=_storage_rule(official, widest))
    if storage_dtype is not None:
        _quantize_linears(module, storage_dtype)
    return TextEncoder(module.eval(), tokenizer, dtype)


def _storage_rule(official: Checkpoint, widest: torch.dtype) -> Callable[[str, Tensor], torch.dtype | None]:
    """None (a view on the file) unless the file stores the weight wider than `widest`."""

    def dtype_of(key: str, _: Tensor) -> torch.dtype | None:
        is_scale = key.endswith(".weight_scale")
        return None if is_scale or official.dtype(key).itemsize <= widest.itemsize else widest

    return dtype_of


def _expect_scales(module: nn.Module, official: Checkpoint) -> None:
    """Make room for the scales of a scaled fp8 file."""
    for name, layer in module.named_modules():
        key = f"{name}.weight_scale"
        if not isinstance(layer, WanLinear) or key not in official:
            continue
        shape = official.shape(key)
        if torch.Size(shape).numel() not in (1, layer.out_features):
            raise ModelFileError(
                official.path,
                f"{key} has shape {list(shape)}, expected one scale per weight or per row; this quantised "
                "format is not available in this version of the pack",
            )
        layer.store_as(SCALED, {**layer.stored(), "weight_scale": torch.empty(shape, device="meta")})


def _quantize_linears(module: nn.Module, storage_dtype: torch.dtype) -> None:
    """Store linear weights as fp8 with one scale per row; layers that are fp8 already are left alone."""
    if storage_dtype != FP8:
        raise ValueError(f"cannot store linear weights as {storage_dtype}")
    for layer in module.modules():
        if not isinstance(layer, WanLinear) or layer.weight.dtype.itemsize == 1:
            continue
        weight = layer.weight.float()
        scale = (weight.abs().amax(1) / _FP8_LIMIT).clamp(min=torch.finfo(torch.float32).tiny)
        layer.store_as(SCALED, {"weight": (weight / scale[:, None]).to(FP8), "weight_scale": scale})


def _weighted(encoded: Tensor, empty: Tensor | None, prompt: WeightedPrompt, tokens: Tokens) -> Tensor:
    if not prompt.spans or empty is None:
        return encoded
    weights = torch.tensor([prompt.weight(*place) for place in tokens.places])[:, None]
    base = torch.zeros_like(encoded)
    base[: len(empty)] = empty
    return torch.where(weights == 1.0, encoded, torch.lerp(base, encoded, weights))


def _warn_when_cut(tokens: Tokens) -> None:
    if tokens.dropped:
        log.warning(
            "a prompt has %d tokens, Wan reads %d: the last %d were dropped",
            len(tokens.ids) + tokens.dropped,
            MAX_TOKENS,
            tokens.dropped,
        )

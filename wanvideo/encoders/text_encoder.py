"""A UMT5 file with its tokenizer, ready to encode prompts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..conditioning.prompts import WeightedPrompt, clean_prompt, parse_weights
from ..errors import ModelFileError
from ..weights.assemble import assign
from ..weights.checkpoint import Checkpoint
from ..weights.conversion import Conversion, converted
from ..weights.formats.expect import expect_formats, needs_decoding, wan_linears
from .tokenizer import MAX_TOKENS, Tokenizer, Tokens, find_tokenizer
from .umt5 import UMT5Encoder
from .umt5_keys import official_umt5, read_config

log = logging.getLogger(__name__)

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
    """Load a UMT5 encoder in any known key style and any storage format the pack reads.

    Weights stay views on the file wherever they are stored no wider than `dtype`; a linear layer casts when
    it is used, with the same result as casting at once.

    Args:
        checkpoint: the opened file.
        dtype: compute precision: float32, bfloat16 or float16.
        storage_dtype: float8_e4m3fn or float8_e5m2 quantises the linear layers that are stored wider (one
            scale per row; norms, position tables and the embedding table stay as they are); None keeps the
            file's storage.
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
    widest = dtype
    if storage_dtype is not None:
        linears = [f"blocks.{path}.weight" for path, _ in wan_linears(module.blocks)]
        official = converted(official, Conversion(storage_dtype, "row"), linears)
        widest = torch.float32  # the rest stays as it is
    used_up = expect_formats(module, official)
    assign(module, official, dtype_of=_storage_rule(official, dtype, widest), ignore=used_up)
    return TextEncoder(module.eval(), tokenizer, dtype)


def _storage_rule(
    official: Checkpoint, dtype: torch.dtype, widest: torch.dtype
) -> Callable[[str, Tensor], torch.dtype | None]:
    """None (a view on the file) unless the file packs a weight or stores it wider than `widest`."""

    def dtype_of(key: str, _: Tensor) -> torch.dtype | None:
        if needs_decoding(official, key):
            return dtype
        return None if official.dtype(key).itemsize <= widest.itemsize else widest

    return dtype_of


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

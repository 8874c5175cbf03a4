"""Prompts to text embeds."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..wanvideo.conditioning.text import TextEmbeds
from ..wanvideo.errors import NotYetError
from ..wanvideo.weights.checkpoint import Checkpoint
from .base import CATEGORY, ModelNameNode, WanNode, model_file_input
from .host import GGUF, io, load, rows_of_conditioning, user_folder
from .sockets import Model, PromptExtender, TextEmbedsSocket, TextEncoderSocket
from .text_cache import TextCache
from .text_encoding import (
    FOLDER,
    PRECISIONS,
    QUANTIZATIONS,
    cache_for,
    check_encoder,
    encode_both,
    encode_cached,
    encoder_of,
    find_encoder,
    identity,
    load_text_encoder,
    offload_model,
)


def prompt_input(name: str, tooltip: str) -> io.String.Input:
    """A text field of several lines."""
    return io.String.Input(name, default="", multiline=True, tooltip=tooltip)


def device_input(*, optional: bool) -> io.Combo.Input:
    """Where prompts are encoded."""
    return io.Combo.Input(
        "device",
        options=["gpu", "cpu"],
        default="gpu",
        optional=optional,
        tooltip="Where the text encoder runs; on the GPU it needs about 1 GB when it is not kept there.",
    )


def disk_cache_input(*, default: bool, optional: bool) -> io.Boolean.Input:
    """Whether encoded prompts are kept on disk."""
    return io.Boolean.Input(
        "use_disk_cache",
        default=default,
        optional=optional,
        tooltip="Keep encoded prompts in ComfyUI's user folder (wanvideo/text_embeds) and use them again.",
    )


def file_inputs() -> tuple[io.Input, io.Input, io.Input]:
    """The file list, the precision and the quantization of a text encoder."""
    return (
        model_file_input(
            "model_name",
            folder=FOLDER,
            tooltip="A UMT5-XXL file from models/text_encoders.",
            extra_suffixes=GGUF,
        ),
        io.Combo.Input(
            "precision",
            options=list(PRECISIONS),
            default="bf16",
            tooltip="What the text encoder computes in.",
        ),
        io.Combo.Input(
            "quantization",
            options=list(QUANTIZATIONS),
            default="disabled",
            tooltip="fp8_e4m3fn halves the memory of a 16-bit file; a file that is fp8 stays as it is.",
        ),
    )


class _EncoderFileNode(ModelNameNode):
    @classmethod
    def check_header(cls, checkpoint: Checkpoint) -> None:
        check_encoder(checkpoint)


class LoadWanVideoT5TextEncoder(_EncoderFileNode):
    """Loads a text encoder file."""

    FOLDER = FOLDER
    EXTRA_SUFFIXES = GGUF

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        model_name, precision, quantization = file_inputs()
        quantization.optional = True
        return io.Schema(
            node_id="LoadWanVideoT5TextEncoder",
            display_name="WanVideo T5 Text Encoder Loader",
            category=CATEGORY,
            description="Loads the UMT5-XXL text encoder, from official files or ComfyUI's.",
            inputs=[
                model_name,
                precision,
                io.Combo.Input(
                    "load_device",
                    options=["main_device", "offload_device"],
                    default="offload_device",
                    optional=True,
                    tooltip="main_device brings it to the GPU now; offload_device when it is first used.",
                ),
                quantization,
            ],
            outputs=[TextEncoderSocket.Output(display_name="wan_t5_model")],
        )

    @classmethod
    def run(
        cls,
        *,
        model_name: str,
        precision: str,
        load_device: str = "offload_device",
        quantization: str = "disabled",
    ) -> io.NodeOutput:
        """Load the file."""
        path = find_encoder(model_name)
        loaded = load_text_encoder(path, precision, quantization)
        if load_device == "main_device":
            load(loaded.managed)
        return io.NodeOutput(loaded)


def encode_inputs() -> list[io.Input]:
    """The inputs the two encode nodes share, after their text fields."""
    return [
        io.MultiType.Input(
            "t5",
            types=[TextEncoderSocket, io.Clip],
            optional=True,
            tooltip="From WanVideo T5 Text Encoder Loader or ComfyUI's Load CLIP (type wan).",
        ),
        io.Boolean.Input(
            "force_offload",
            default=True,
            optional=True,
            tooltip="Do not keep the text encoder on the GPU. Off: it stays until ComfyUI needs the room.",
        ),
        Model.Input("model_to_offload", optional=True, tooltip="Taken off the GPU first."),
        disk_cache_input(default=False, optional=True),
        device_input(optional=True),
    ]


class WanVideoTextEncode(WanNode):
    """A positive and a negative prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoTextEncode",
            display_name="WanVideo TextEncode",
            category=CATEGORY,
            description="Encodes the prompts. Several positive prompts separated by | share the length of "
            "the video evenly; (text:1.2) makes text count more.",
            inputs=[
                prompt_input("positive_prompt", "What to show; several prompts are separated by |."),
                prompt_input("negative_prompt", "What to avoid; needs a CFG above 1."),
                *encode_inputs(),
            ],
            outputs=[TextEmbedsSocket.Output(display_name="text_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        positive_prompt: str,
        negative_prompt: str,
        t5: object = None,
        force_offload: bool = True,
        model_to_offload: object = None,
        use_disk_cache: bool = False,
        device: str = "gpu",
    ) -> io.NodeOutput:
        """Encode both prompts in one pass of the encoder."""
        encode = encoder_of(t5, force_offload=force_offload, device=device)
        offload_model(model_to_offload)
        cache = cache_for(t5, use_disk_cache=use_disk_cache)
        return io.NodeOutput(encode_both(positive_prompt, negative_prompt, encode, cache))


class WanVideoTextEncodeSingle(WanNode):
    """One prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoTextEncodeSingle",
            display_name="WanVideo TextEncodeSingle",
            category=CATEGORY,
            description="Encodes one prompt, for nodes that take their prompts one by one.",
            inputs=[prompt_input("prompt", "What to show."), *encode_inputs()],
            outputs=[TextEmbedsSocket.Output(display_name="text_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        prompt: str,
        t5: object = None,
        force_offload: bool = True,
        model_to_offload: object = None,
        use_disk_cache: bool = False,
        device: str = "gpu",
    ) -> io.NodeOutput:
        """Encode the prompt; | has no special meaning here."""
        encode = encoder_of(t5, force_offload=force_offload, device=device)
        offload_model(model_to_offload)
        rows = encode_cached([prompt], encode, cache_for(t5, use_disk_cache=use_disk_cache))
        return io.NodeOutput(TextEmbeds(tuple(rows)))


class WanVideoTextEncodeCached(_EncoderFileNode):
    """Both prompts, with a text encoder that is loaded only when it is needed."""

    FOLDER = FOLDER
    EXTRA_SUFFIXES = GGUF

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        model_name, precision, quantization = file_inputs()
        return io.Schema(
            node_id="WanVideoTextEncodeCached",
            display_name="WanVideo TextEncode Cached",
            category=CATEGORY,
            description="Opens the text encoder, encodes the prompts and closes it again. Prompts that "
            "are in the disk cache need no text encoder at all.",
            inputs=[
                model_name,
                precision,
                prompt_input("positive_prompt", "What to show; several prompts are separated by |."),
                prompt_input("negative_prompt", "What to avoid; needs a CFG above 1."),
                quantization,
                disk_cache_input(default=True, optional=False),
                device_input(optional=False),
                PromptExtender.Input(
                    "extender_args", optional=True, tooltip="Lets a language model extend the prompt."
                ),
            ],
            outputs=[
                TextEmbedsSocket.Output(display_name="text_embeds", tooltip="Both prompts."),
                TextEmbedsSocket.Output(
                    display_name="negative_text_embeds", tooltip="The negative prompt alone, for NAG."
                ),
                io.String.Output(
                    display_name="positive_prompt", tooltip="The positive prompt that was encoded."
                ),
            ],
        )

    @classmethod
    def run(
        cls,
        *,
        model_name: str,
        positive_prompt: str,
        negative_prompt: str,
        use_disk_cache: bool,
        device: str,
        extender_args: object = None,
        **options: str,
    ) -> io.NodeOutput:
        """Encode what is not in the cache."""
        if extender_args is not None:
            raise NotYetError("extender_args", "extending the prompt", "disconnect it")
        path = find_encoder(model_name)
        precision, quantization = options["precision"], options["quantization"]

        def encode(prompts: Sequence[str]) -> list[Tensor]:
            encoder = load_text_encoder(path, precision, quantization)
            return encoder_of(encoder, force_offload=True, device=device)(prompts)

        cache = None
        if use_disk_cache:
            parts = identity(Checkpoint.open(path), precision, quantization)
            cache = TextCache(user_folder("text_embeds"), parts)
        embeds = encode_both(positive_prompt, negative_prompt, encode, cache)
        return io.NodeOutput(embeds, TextEmbeds(embeds.negative_prompt_embeds), positive_prompt)


class WanVideoTextEmbedBridge(WanNode):
    """Core CONDITIONING as text embeds."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoTextEmbedBridge",
            display_name="WanVideo TextEmbed Bridge",
            category=CATEGORY,
            description="Uses prompts encoded by ComfyUI's CLIP Text Encode (Load CLIP, type wan).",
            inputs=[io.Conditioning.Input("positive"), io.Conditioning.Input("negative", optional=True)],
            outputs=[TextEmbedsSocket.Output(display_name="text_embeds")],
        )

    @classmethod
    def run(cls, *, positive: object, negative: object = None) -> io.NodeOutput:
        """The rows of both, without padding."""
        avoided = () if negative is None else (rows_of_conditioning(negative, input_name="negative"),)
        return io.NodeOutput(TextEmbeds((rows_of_conditioning(positive, input_name="positive"),), avoided))


NODES: list[type[WanNode]] = [
    LoadWanVideoT5TextEncoder,
    WanVideoTextEncode,
    WanVideoTextEncodeSingle,
    WanVideoTextEncodeCached,
    WanVideoTextEmbedBridge,
]

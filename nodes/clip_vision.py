"""Load CLIP's image encoder, and encode pictures for Wan 2.1 image to video models."""

from __future__ import annotations

from torch import Tensor

from ..wanvideo.conditioning.clip import COMBINATIONS, PictureEncoding
from ..wanvideo.errors import WanError
from ..wanvideo.weights.checkpoint import Checkpoint
from .base import CATEGORY, WanNode
from .clip_encoding import (
    FOLDERS,
    PRECISIONS,
    check_clip_vision,
    encoder_of,
    folder_of,
    load_clip_vision_file,
    offload_clip_vision,
)
from .host import check_file, file_fingerprint, io, list_files, load, resolve_file
from .sockets import ClipEmbedsSocket

CROPS = ("center", "disabled")
MAX_TILES = 16


class LoadWanVideoClipTextEncoder(WanNode):
    """Loads an image encoder file, whatever its name says."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="LoadWanVideoClipTextEncoder",
            display_name="WanVideo CLIP Text Encoder Loader",
            category=CATEGORY,
            description="Loads the CLIP image encoder (ViT-H) that Wan 2.1 image to video models look at "
            "pictures with: Wan's own file, ComfyUI's clip_vision_h or OpenCLIP's.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=list(dict.fromkeys(name for folder in FOLDERS for name in list_files(folder))),
                    tooltip="A file from models/clip_vision, or from models/text_encoders.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="fp16",
                    tooltip="What the image encoder computes in; norms and sums stay in fp32.",
                ),
                io.Combo.Input(
                    "load_device",
                    options=["main_device", "offload_device"],
                    default="offload_device",
                    optional=True,
                    tooltip="main_device brings it to the GPU now; offload_device when it is first used.",
                ),
            ],
            outputs=[io.ClipVision.Output(display_name="wan_clip_vision")],
        )

    @classmethod
    def validate_inputs(cls, model_name: object) -> bool | str:
        """Find the file and look at its header, before anything is loaded."""
        folder = folder_of(model_name)
        found = check_file(folder, model_name, input_name="model_name")
        if found is not True or not isinstance(model_name, str):
            return found
        path = resolve_file(folder, model_name, input_name="model_name")
        if path.suffix.lower() != ".safetensors":
            return True  # other formats have no header that could be read alone
        try:
            check_clip_vision(Checkpoint.open(path))
        except WanError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model_name: object = None, **_: object) -> tuple[str, int, int]:
        """Run again when the file changed."""
        return file_fingerprint(folder_of(model_name), model_name)

    @classmethod
    def run(cls, *, model_name: str, precision: str, load_device: str = "offload_device") -> io.NodeOutput:
        """Load the file."""
        path = resolve_file(folder_of(model_name), model_name, input_name="model_name")
        loaded = load_clip_vision_file(path, precision)
        if load_device == "main_device":
            load(loaded.managed)
        return io.NodeOutput(loaded)


def _strength(name: str, picture: str) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=1.0,
        min=0.0,
        max=10.0,
        step=0.001,
        tooltip=f"Factor on the rows of {picture}. Models norm every row first, so it weighs this picture "
        "against the other one; with a single picture it does next to nothing.",
    )


def _tile_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "tiles",
            default=0,
            min=0,
            max=MAX_TILES,
            step=2,
            optional=True,
            tooltip="Encode each picture also in tiles x tiles parts and average them: more detail. "
            "A single picture and its tiles are combined like two pictures. 0: off.",
        ),
        io.Float.Input(
            "ratio",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.01,
            optional=True,
            tooltip="With tiles: the factor of the whole picture; the tiles of several pictures have "
            "the rest to 1, those of a single one 1.",
        ),
    ]


class WanVideoClipVisionEncode(WanNode):
    """One picture or several to CLIP rows."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoClipVisionEncode",
            display_name="WanVideo ClipVision Encode",
            category=CATEGORY,
            description="Encodes pictures with CLIP for Wan 2.1 image to video models, such as the first and "
            "the last frame.",
            inputs=[
                io.ClipVision.Input(
                    "clip_vision",
                    tooltip="From WanVideo CLIP Text Encoder Loader or ComfyUI's Load CLIP Vision.",
                ),
                io.Image.Input("image_1", tooltip="The picture; of a batch every picture counts."),
                _strength("strength_1", "the first picture"),
                _strength("strength_2", "the second picture, or of the tiles of a single one"),
                io.Combo.Input(
                    "crop",
                    options=list(CROPS),
                    default="center",
                    tooltip="center: cut the middle square; disabled: squeeze the whole picture to a square.",
                ),
                io.Combo.Input(
                    "combine_embeds",
                    options=list(COMBINATIONS),
                    default="average",
                    tooltip="Several pictures: average or sum of their rows, concat for all rows (models for "
                    "first and last frame), batch for pictures that share the frames of the video.",
                ),
                io.Boolean.Input(
                    "force_offload",
                    default=True,
                    tooltip="Take the image encoder off the GPU afterwards. Off: it stays until ComfyUI "
                    "needs the room.",
                ),
                io.Image.Input("image_2", optional=True, tooltip="Another picture; its size may differ."),
                io.Image.Input(
                    "negative_image",
                    optional=True,
                    tooltip="What the negative pass looks at instead; needs a CFG above 1. One picture, or "
                    "as many as the others together.",
                ),
                *_tile_inputs(),
            ],
            outputs=[ClipEmbedsSocket.Output(display_name="image_embeds")],
        )

    @classmethod
    def run(
        cls,
        *,
        clip_vision: object,
        image_1: Tensor,
        crop: str,
        combine_embeds: str,
        force_offload: bool,
        image_2: Tensor | None = None,
        negative_image: Tensor | None = None,
        **numbers: float,
    ) -> io.NodeOutput:
        """Encode all pictures."""
        how = PictureEncoding(
            encoder_of(clip_vision, crop=crop != "disabled"),
            combine_embeds,
            tiles=int(numbers.get("tiles", 0)),
            ratio=numbers.get("ratio", 0.5),
        )
        given = {"image_1": image_1, "image_2": image_2}
        embeds = how.embeds(
            {name: images for name, images in given.items() if images is not None},
            negative_image,
            strengths=(numbers["strength_1"], numbers["strength_2"]),
        )
        if force_offload:
            offload_clip_vision(clip_vision)
        return io.NodeOutput(embeds)


NODES: list[type[WanNode]] = [LoadWanVideoClipTextEncoder, WanVideoClipVisionEncode]

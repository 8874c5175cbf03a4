"""Videos, masks and reference pictures for VACE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from ....nodes.base import CATEGORY, WanNode
from ....nodes.host import io, resize_images
from ....nodes.inputs import frames_input, size_input, step_inputs, strength_input
from ....nodes.notices import warn
from ....nodes.sockets import ImageEmbeds, ImageEmbedsSocket, as_image_embeds
from ....nodes.vae import vae_input
from ....nodes.video_vae import VideoVae, as_video_vae
from ...conditioning.geometry import VideoGeometry
from ...conditioning.step_range import StepRange
from ...conditioning.timed import Timed
from ...vae import Tiling
from .inputs import VACE, VaceContext, VaceInput
from .preparation import (
    check_pictures,
    inactive_part,
    mask_channels,
    on_white,
    padded_frames,
    padded_masks,
    reactive_part,
    side_by_side,
)

ReferenceLayout = Literal["separate frames", "one picture"]
LAYOUTS: tuple[ReferenceLayout, ...] = get_args(ReferenceLayout)
SEPARATE: ReferenceLayout = "separate frames"
ONE_PICTURE: ReferenceLayout = "one picture"


@dataclass(frozen=True)
class VaceEncodeInputs:
    """Inputs of WanVideo VACE Encode, by name; see the node for their meaning."""

    vae: object
    width: int
    height: int
    num_frames: int
    strength: float | Sequence[float]
    vace_start_percent: float
    vace_end_percent: float
    input_frames: Tensor | None = None
    ref_images: Tensor | None = None
    input_masks: Tensor | None = None
    prev_vace_embeds: object = None
    tiled_vae: bool = False
    reference_layout: ReferenceLayout | Literal[""] | None = None


class WanVideoVACEEncode(WanNode):
    """Size of a video, and what it is made after."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Describe the node."""
        return io.Schema(
            node_id="WanVideoVACEEncode",
            display_name="WanVideo VACE Encode",
            category=CATEGORY,
            description="A video to follow (pose, depth, edges, ...), or parts of one to keep, and pictures "
            "of what is to appear, for models with VACE (https://github.com/ali-vilab/VACE). All of it is "
            "optional. Sizes and lengths that do not fit are fitted, which is said.",
            inputs=[
                vae_input(),
                size_input("width", 832),
                size_input("height", 480),
                frames_input(),
                strength_input(
                    "strength", "How much VACE adds; 0 is none. A list has a value for each step."
                ),
                *step_inputs("VACE", prefix="vace_"),
                io.Image.Input(
                    "input_frames",
                    optional=True,
                    tooltip="The video to follow, or to keep where the masks are 0. Frames it lacks are made "
                    "anew.",
                ),
                io.Image.Input(
                    "ref_images",
                    optional=True,
                    tooltip="Pictures of subjects or of a style; they are put on white in the video's aspect "
                    "ratio.",
                ),
                io.Mask.Input(
                    "input_masks",
                    optional=True,
                    tooltip="1 where the video is made anew, 0 where input_frames are kept; one for all "
                    "frames or one each. Everywhere anew by default.",
                ),
                ImageEmbedsSocket.Input(
                    "prev_vace_embeds",
                    optional=True,
                    tooltip="Of another WanVideo VACE Encode of the same length: what both add is summed.",
                ),
                io.Boolean.Input(
                    "tiled_vae",
                    default=False,
                    optional=True,
                    tooltip="Encode in overlapping tiles: needs less memory, takes longer.",
                ),
                io.Combo.Input(
                    "reference_layout",
                    options=list(LAYOUTS),
                    default=SEPARATE,
                    optional=True,
                    advanced=True,
                    tooltip="Where there are several ref_images. separate frames: each has a latent frame, "
                    "as VACE was trained. one picture: side by side in a single one, as in WanVideoWrapper.",
                ),
            ],
            outputs=[ImageEmbedsSocket.Output(display_name="vace_embeds")],
        )

    @classmethod
    def validate_inputs(cls, reference_layout: object = "") -> bool | str:
        """Accept the empty value that graphs of the predecessor may have after their last widget."""
        if reference_layout in (*LAYOUTS, "", None) or not isinstance(reference_layout, str):
            return True
        return f"reference_layout: {reference_layout!r} is not one of {', '.join(LAYOUTS)}"

    @classmethod
    def run(cls, **inputs: Any) -> io.NodeOutput:
        """Embeds of the nearest possible size; what came with ``prev_vace_embeds`` stays in them."""
        given = VaceEncodeInputs(**inputs)
        vae = as_video_vae(given.vae)
        geometry, remarks = VideoGeometry.snapped(
            given.width, given.height, given.num_frames, spatial_stride=vae.spatial_stride
        )
        remarks += _remarks(given, geometry)
        if remarks:
            warn(cls, "; ".join(remarks))
        context = _context(given, vae, geometry)
        previous = ImageEmbeds(geometry)
        if given.prev_vace_embeds is not None:
            previous = as_image_embeds(given.prev_vace_embeds, input_name="prev_vace_embeds")
        chained = previous.inputs.get(VACE)
        before = chained.contexts if isinstance(chained, VaceInput) else ()
        embeds = ImageEmbeds(geometry, previous.inputs)
        return io.NodeOutput(embeds.with_input(VACE, VaceInput((*before, context))))


def _remarks(given: VaceEncodeInputs, geometry: VideoGeometry) -> list[str]:
    """A sentence for everything that is fitted to the video."""
    remarks: list[str] = []
    frames, size = given.input_frames, f"{geometry.width}x{geometry.height}"
    if frames is not None:
        check_pictures(frames, "input_frames")
        if f"{frames.shape[2]}x{frames.shape[1]}" != size:
            remarks.append(f"input_frames {frames.shape[2]}x{frames.shape[1]}: resized to {size}")
        if frames.shape[0] > geometry.frames:
            remarks.append(f"input_frames: {frames.shape[0]} given, the first {geometry.frames} are used")
        elif frames.shape[0] < geometry.frames:
            remarks.append(
                f"input_frames: {frames.shape[0]} given, the video has {geometry.frames}: the "
                "others are made anew"
            )
    masks = given.input_masks
    if masks is not None and masks.ndim == 3 and masks.shape[0] not in (1, geometry.frames):
        use = "the first are used" if masks.shape[0] > geometry.frames else "the others are made anew"
        remarks.append(f"input_masks: {masks.shape[0]} given, the video has {geometry.frames} frames: {use}")
    if not given.reference_layout and given.ref_images is not None and given.ref_images.shape[0] > 1:
        remarks.append(
            "as in WanVideoWrapper all ref_images are in one picture; VACE was trained with "
            f"reference_layout {SEPARATE!r}"
        )
    return remarks


def _context(given: VaceEncodeInputs, vae: VideoVae, geometry: VideoGeometry) -> VaceContext:
    size, tiling = (geometry.height, geometry.width), Tiling() if given.tiled_vae else None
    frames = given.input_frames
    images = None if frames is None else _resized(frames[: geometry.frames], geometry, crop=False)
    count = 0 if images is None else images.shape[0]
    video = padded_frames(images, geometry.frames, size)
    del images
    masks = padded_masks(given.input_masks, geometry.frames, size, given=count)
    inactive = vae.encode(inactive_part(video, masks), tiling=tiling)
    # without pictures both parts are grey
    reactive = vae.encode(reactive_part(video, masks), tiling=tiling) if count else inactive
    return VaceContext(
        inactive=Timed(inactive),
        reactive=Timed(reactive),
        mask=Timed(mask_channels(masks, (geometry.latent_height, geometry.latent_width))),
        references=tuple(vae.encode(picture, tiling=tiling) for picture in _references(given, geometry)),
        strength=given.strength,
        steps=StepRange(given.vace_start_percent, given.vace_end_percent),
    )


def _references(given: VaceEncodeInputs, geometry: VideoGeometry) -> list[Tensor]:
    """Each reference ``[1, H, W, 3]`` in the size of the video."""
    images = given.ref_images
    if images is None:
        return []
    check_pictures(images, "ref_images")
    if given.reference_layout != SEPARATE:
        images = side_by_side(images)
    canvas = on_white(images, geometry.width, geometry.height)
    return list(_resized(canvas, geometry, crop=True).split(1))


def _resized(images: Tensor, geometry: VideoGeometry, *, crop: bool) -> Tensor:
    images = images[..., :3]
    if images.shape[1:3] == (geometry.height, geometry.width):
        return images
    return resize_images(images, geometry.width, geometry.height, crop=crop)


NODES: list[type[WanNode]] = [WanVideoVACEEncode]

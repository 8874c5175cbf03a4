"""A video that ends with its control video."""

from __future__ import annotations

from ..wanvideo.conditioning.conditioning import FamilyInput
from ..wanvideo.conditioning.control import CONTROL, ControlInput
from ..wanvideo.errors import InputError
from .sockets import ImageEmbeds


def cut_to_control(embeds: ImageEmbeds, control: FamilyInput | None) -> tuple[ImageEmbeds, list[str]]:
    """Embeds as long as a control video that is joined to them, where that was made to trim the video.

    Args:
        embeds: what they carry is cut with the video.
        control: what is joined to them.

    Returns:
        The embeds, and a sentence if the video was cut.

    Raises:
        InputError: they carry something that cannot be cut.
    """
    if not isinstance(control, ControlInput) or control.fit != "trim":
        return embeds, []
    before, latent_frames = embeds.geometry, control.latent.values.shape[2]
    if latent_frames >= before.latent_frames:
        return embeds, []
    geometry = before.with_latent_frames(latent_frames)
    inputs: dict[str, FamilyInput] = {}
    for name, value in embeds.inputs.items():
        if name == CONTROL:
            inputs[name] = value  # fitted when a run is prepared
            continue
        first = value.leading_frames
        behind = range(first + before.latent_frames, first + before.latent_frames + value.trailing_frames)
        try:
            inputs[name] = value.window([*range(first + latent_frames), *behind])
        except IndexError:
            raise InputError(
                "length_fit",
                f"trim cannot cut the input for {name}; set num_frames to {geometry.frames} in the node it "
                "comes from",
            ) from None
    change = (
        f"the video is cut from {before.frames} to {geometry.frames} frames to end with its control video"
    )
    return ImageEmbeds(geometry, inputs), [change]

"""Pictures for CLIP: ComfyUI's numbers, and tiles against a reference made by hand."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.encoders.clip_vision_pixels import encode_tiles, pixels_for_clip
from comfyui_wanvideo.wanvideo.errors import InputError
from hypothesis import given, settings
from hypothesis import strategies as st

SIDES = st.integers(16, 90)


def pictures(count=2, height=37, width=53, channels=3):
    return torch.rand(count, height, width, channels, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize(
    ("height", "width"), [(224, 224), (480, 832), (832, 480), (100, 100), (225, 224), (31, 333)]
)
def test_pixels_are_exactly_comfyuis(comfyui_path, height, width, crop):
    from comfy.clip_model import clip_preprocess

    images = pictures(height=height, width=width)
    assert torch.equal(pixels_for_clip(images, 224, crop=crop), clip_preprocess(images, crop=crop))


@settings(max_examples=40)
@given(height=SIDES, width=SIDES, size=st.integers(14, 60), crop=st.booleans())
def test_pixels_are_exactly_comfyuis_for_any_size(comfyui_path, height, width, size, crop):
    from comfy.clip_model import clip_preprocess

    images = pictures(height=height, width=width) * 1.4 - 0.2  # beyond black and white too
    expected = clip_preprocess(images, size=size, crop=crop)
    assert torch.equal(pixels_for_clip(images, size, crop=crop), expected)


def test_an_alpha_channel_is_dropped():
    images = pictures(channels=4)
    assert torch.equal(
        pixels_for_clip(images, 28, crop=True), pixels_for_clip(images[..., :3], 28, crop=True)
    )


def test_half_precision_pictures_are_resized_in_float32():
    images = pictures()
    found = pixels_for_clip(images.half(), 28, crop=True)
    assert found.dtype == torch.float32
    assert torch.equal(found, pixels_for_clip(images.half().float(), 28, crop=True))


def test_pixels_do_not_change_their_input():
    images = pictures(height=28, width=28)
    pixels_for_clip(images, 28, crop=True)
    assert torch.equal(images, pictures(height=28, width=28))


@pytest.mark.parametrize("shape", [(37, 53, 3), (1, 37, 53, 1), (0, 37, 53, 3), (1, 3, 8, 8, 3)])
def test_something_else_than_pictures_is_refused(shape):
    with pytest.raises(InputError, match=r"expected pictures \[B, H, W, 3\]"):
        pixels_for_clip(torch.zeros(shape), 28, crop=True)


GRID, WIDTH = 4, 6


def encode(images):
    """Rows that depend on the pictures: any function will do."""
    pixels = torch.nn.functional.adaptive_avg_pool2d(images.movedim(-1, 1), GRID).flatten(2).transpose(1, 2)
    rows = torch.cat([pixels.mean(dim=1, keepdim=True), pixels], dim=1)
    return torch.cat([rows, rows.square()], dim=-1)


@pytest.mark.parametrize("tiles", [2, 3, 4])
def test_tiles_equal_a_reference_made_by_hand(tiles):
    images = pictures(height=37, width=53)
    found = encode_tiles(encode, images, tiles, input_name="image_1")
    height, width = 37 // tiles, 53 // tiles
    for image, merged in zip(images, found, strict=True):
        wide = torch.zeros(GRID * tiles, GRID * tiles, WIDTH)
        classes = torch.zeros(WIDTH)
        for row in range(tiles):
            for column in range(tiles):
                tile = image[row * height : (row + 1) * height, column * width : (column + 1) * width]
                rows = encode(tile[None])[0]
                classes += rows[0] / tiles**2
                place = wide[row * GRID : (row + 1) * GRID, column * GRID : (column + 1) * GRID]
                place[:] = rows[1:].view(GRID, GRID, WIDTH)
        torch.testing.assert_close(merged[0], classes, rtol=1e-6, atol=1e-6)
        for index in range(GRID * GRID):
            y, x = divmod(index, GRID)
            mean = wide[y * tiles : (y + 1) * tiles, x * tiles : (x + 1) * tiles].mean(dim=(0, 1))
            torch.testing.assert_close(merged[1 + index], mean, rtol=1e-6, atol=1e-6)


def test_each_picture_gets_the_tiles_of_its_own():
    images = pictures(count=3)
    together = encode_tiles(encode, images, 2, input_name="image_1")
    alone = torch.cat([encode_tiles(encode, image[None], 2, input_name="image_1") for image in images])
    assert together.shape == (3, 1 + GRID * GRID, WIDTH)
    assert torch.equal(together, alone)


def test_a_picture_smaller_than_its_tiles_is_refused():
    with pytest.raises(InputError, match=r"^image_2: a picture of 9x3 pixels cannot be cut into 4 x 4 tiles"):
        encode_tiles(encode, pictures(height=3, width=9), 4, input_name="image_2")

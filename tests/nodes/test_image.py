"""Picture sizes that fit a generation size."""

import pytest
import torch


@pytest.fixture
def image(node_module):
    return node_module("image")


def resize(image, mode, shape=(1, 72, 96, 3), size=(80, 64)):
    return image.WanVideoImageResizeToClosest.execute(
        image=torch.rand(shape),
        generation_width=size[0],
        generation_height=size[1],
        aspect_ratio_preservation=mode,
    )


@pytest.mark.parametrize(
    ("mode", "width", "height"), [("keep_input", 80, 48), ("stretch_to_new", 80, 64), ("crop_to_new", 80, 64)]
)
def test_size_of_each_mode(image, mode, width, height):
    output = resize(image, mode)
    assert output[0].shape == (1, height, width, 3)
    assert (output[1], output[2]) == (width, height)


@pytest.mark.parametrize("size", [(832, 480), (480, 832), (1280, 720), (1920, 1088), (640, 640)])
def test_a_picture_of_the_generation_size_keeps_it(image, size):
    width, height = size
    assert image.closest_size(width, height, width * height) == (width, height // 16 * 16)


def test_the_area_is_not_exceeded(image):
    for picture in [(1000, 300), (300, 1000), (777, 555), (64, 4000)]:
        width, height = image.closest_size(*picture, 832 * 480)
        assert width % 16 == height % 16 == 0
        assert width * height <= 832 * 480


def test_cropping_keeps_the_middle(image):
    picture = torch.zeros(1, 64, 192, 3)
    picture[:, :, 64:128] = 1.0
    output = image.WanVideoImageResizeToClosest.execute(
        image=picture, generation_width=64, generation_height=64, aspect_ratio_preservation="crop_to_new"
    )
    assert output[0].min() > 0.99


def test_all_frames_are_resized(image):
    assert resize(image, "keep_input", shape=(5, 72, 96, 3))[0].shape[0] == 5

"""Nodes that pick, place and paint frames."""

import pytest
import torch


@pytest.fixture
def frames(node_module):
    return node_module("frames")


def pictures(count, height=32, width=48, channels=3):
    return torch.rand(count, height, width, channels)


def start_to_end(frames, num_frames=9, empty_frame_level=0.5, **inputs):
    return frames.WanVideoVACEStartToEndFrame.execute(
        num_frames=num_frames, empty_frame_level=empty_frame_level, **inputs
    )


def test_the_first_frames_are_taken(frames):
    video = pictures(6)
    output = frames.ExtractStartFramesForContinuations.execute(input_video_frames=video, num_frames=3)
    assert torch.equal(output[0], video[:3])


def test_too_few_frames_are_taken_with_a_warning_that_has_both_numbers(frames, caplog):
    output = frames.ExtractStartFramesForContinuations.execute(input_video_frames=pictures(4), num_frames=10)
    assert len(output[0]) == 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "num_frames is 10, but the video has only 4 frames" in caplog.text


def test_an_empty_video_is_an_error(frames):
    with pytest.raises(
        Exception, match=r"^Extract Start Frames .*: input_video_frames: the video has no frames"
    ):
        frames.ExtractStartFramesForContinuations.execute(input_video_frames=pictures(0), num_frames=1)


def test_start_and_end_are_placed(frames):
    start, end = pictures(1), pictures(1)
    images, masks = start_to_end(frames, start_image=start, end_image=end)[:2]
    assert torch.equal(images[0], start[0])
    assert torch.equal(images[8], end[0])
    assert masks.mean(dim=(1, 2)).tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 0]


def test_indices_are_used(frames):
    masks = start_to_end(frames, start_image=pictures(1), end_image=pictures(2), start_index=2, end_index=-3)[
        1
    ]
    assert masks.mean(dim=(1, 2)).tolist() == [1, 1, 0, 1, 1, 0, 0, 1, 1]


def test_pictures_get_the_size_of_the_start(frames):
    images, masks = start_to_end(
        frames,
        start_image=pictures(1),
        end_image=pictures(1, 20, 20),
        control_images=pictures(9, 64, 96),
        inpaint_mask=torch.ones(1, 8, 8),
    )[:2]
    assert images.shape == (9, 32, 48, 3)
    assert masks.shape == (9, 32, 48)


def test_pictures_without_start_get_the_size_of_the_end(frames):
    output = start_to_end(frames, end_image=pictures(1), control_images=pictures(3, 20, 20))
    assert output[0].shape == (9, 32, 48, 3)


def test_control_alone_is_kept(frames):
    control = pictures(5)
    images, masks = start_to_end(frames, control_images=control, empty_frame_level=0.25)[:2]
    assert torch.equal(images[:5], control)
    assert (images[5:] == 0.25).all()
    assert masks.mean(dim=(1, 2)).tolist() == [0] * 5 + [1] * 4


def test_the_inpaint_mask_holds_for_empty_frames(frames):
    mask = torch.zeros(1, 32, 48)
    mask[:, :16] = 1
    masks = start_to_end(frames, start_image=pictures(1), inpaint_mask=mask)[1]
    assert not masks[0].any()
    assert torch.equal(masks[1:], mask.repeat(8, 1, 1))


def test_what_is_cut_is_said(frames, caplog):
    start_to_end(frames, start_image=pictures(12))
    assert "WanVideo VACE Start To End Frame: start_image: 12 frames given, the 9 that fit" in caplog.text


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "start_image: connect start_image, end_image or control_images"),
        ({"start_image": pictures(1), "start_index": 9}, "start_index: 9 lies outside the video"),
        ({"end_image": pictures(1), "end_index": -10}, "end_index: -10 lies outside the video"),
        ({"start_image": pictures(0)}, "start_image: expected pictures"),
        ({"start_image": pictures(1), "inpaint_mask": torch.zeros(0, 4, 4)}, "inpaint_mask: expected masks"),
    ],
)
def test_impossible_inputs_are_errors_with_the_inputs_name(frames, inputs, message):
    with pytest.raises(Exception, match=f"^WanVideo VACE Start To End Frame: {message}"):
        start_to_end(frames, **inputs)


def test_an_index_of_a_picture_that_is_not_there_does_not_matter(frames):
    assert start_to_end(frames, end_image=pictures(1), start_index=500)[0].shape[0] == 9


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_noise_keeps_the_subject(frames, device):
    image, mask = pictures(2), torch.zeros(1, 32, 48)
    mask[:, 8:24, 8:24] = 1
    output = frames.DrawGaussianNoiseOnImage.execute(image=image, mask=mask, device=device, seed=3)[0]
    assert output.device.type == "cpu"
    torch.testing.assert_close(output[:, 8:24, 8:24], image[:, 8:24, 8:24])


def test_an_empty_mask_is_said(frames, caplog):
    frames.DrawGaussianNoiseOnImage.execute(image=pictures(2), mask=torch.zeros(1, 32, 48))
    assert "Draw Gaussian Noise On Image: the mask is empty in frames 0, 1" in caplog.text


def test_decoded_pictures_are_handed_on_in_the_range_of_pictures(frames):
    video = torch.tensor([-2.0, -1.0, 0.0, 1.0, 1.5]).view(5, 1, 1, 1).expand(5, 2, 2, 3)
    output = frames.WanVideoPassImagesFromSamples.execute(samples={"video": video, "output_path": "here"})
    assert output[0][:, 0, 0, 0].tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert output[1] == "here"
    assert video.min() == -2


def test_no_output_path_is_an_empty_string(frames):
    output = frames.WanVideoPassImagesFromSamples.execute(samples={"video": torch.zeros(1, 2, 2, 3)})
    assert output[1] == ""


def test_samples_without_pictures_are_an_error(frames):
    with pytest.raises(Exception, match=r"^WanVideo Pass Images From Samples: samples: there are no decoded"):
        frames.WanVideoPassImagesFromSamples.execute(samples={"samples": torch.zeros(1, 16, 1, 4, 4)})

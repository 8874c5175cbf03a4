"""WanVideo VACE Encode: what it makes of pictures, and what it says."""

import importlib

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make
from comfyui_wanvideo.wanvideo.conditioning.run_setup import RunSetup
from comfyui_wanvideo.wanvideo.conditioning.step_range import StepRange
from comfyui_wanvideo.wanvideo.families.phantom.inputs import PHANTOM, PhantomInput
from comfyui_wanvideo.wanvideo.families.vace.inputs import VACE, VaceInput
from comfyui_wanvideo.wanvideo.transformer.config import WanConfig
from comfyui_wanvideo.wanvideo.vae.latent_space import latent_space_for
from comfyui_wanvideo.wanvideo.vae.load import load_vae
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint

WIDTH, HEIGHT, FRAMES = 48, 32, 5
CONFIG = WanConfig(256, 512, 2, 4, 16, 16)


@pytest.fixture(autouse=True)
def inference_mode():
    """As ComfyUI runs its nodes."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session")
def vae_path(tmp_path_factory):
    (path,) = make.write(tmp_path_factory.mktemp("models"), ["tiny_wan21_vae_fp32"])
    return path


@pytest.fixture
def vae(comfyui_path, vae_path):
    vae_nodes = importlib.import_module("comfyui_wanvideo.nodes.vae")
    return vae_nodes.managed_vae(load_vae(Checkpoint.open(vae_path), dtype=torch.float32), vae_path)


@pytest.fixture
def encoder(vae):
    """Encodes pictures in [0, 1]."""
    return importlib.import_module("comfyui_wanvideo.nodes.video_vae").as_video_vae(vae)


@pytest.fixture
def nodes(comfyui_path):
    return importlib.import_module("comfyui_wanvideo.wanvideo.families.vace.nodes")


@pytest.fixture
def embeds(nodes, vae):
    """Runs the node; keyword arguments are its inputs."""

    def run(**inputs):
        given = {
            "vae": vae,
            "width": WIDTH,
            "height": HEIGHT,
            "num_frames": FRAMES,
            "strength": 1.0,
            "vace_start_percent": 0.0,
            "vace_end_percent": 1.0,
            "reference_layout": "separate frames",
        }
        return nodes.WanVideoVACEEncode.execute(**{**given, **inputs})[0]

    return run


def context_of(embeds):
    (context,) = embeds.inputs[VACE].contexts
    return context


def pictures(frames=FRAMES, height=HEIGHT, width=WIDTH, seed=0):
    return torch.rand(frames, height, width, 3, generator=torch.Generator().manual_seed(seed))


def masks(frames=FRAMES, height=HEIGHT, width=WIDTH):
    return (torch.rand(frames, height, width, generator=torch.Generator().manual_seed(5)) > 0.5).float()


def channels(embeds):
    """What the model is given, normalised."""
    value = embeds.inputs[VACE]
    setup = RunSetup(CONFIG, embeds.geometry, latent_space_for(16), leading_frames=value.leading_frames)
    (context,) = value.prepared(setup).contexts
    return context.channels(slice(None))


class EncodingVae:
    """What ComfyUI's node asks of a VAE."""

    def __init__(self, encoder):
        self.encode = lambda images: encoder.encode(images)


@pytest.fixture
def from_comfyui(comfyui_path, monkeypatch, encoder):
    """Runs ComfyUI's node: the channels, normalised, and the frames to trim."""
    monkeypatch.syspath_prepend(comfyui_path)  # its module `nodes`, not this repository's folder
    import comfy.latent_formats
    from comfy_extras.nodes_wan import WanVaceToVideo

    def run(**inputs):
        vae, space = EncodingVae(encoder), comfy.latent_formats.Wan21()
        text = [["", {}]]
        out = WanVaceToVideo.execute(text, text, vae, WIDTH, HEIGHT, FRAMES, 1, 1.0, **inputs).args
        conditions = out[0][0][1]
        (latent,), (mask,) = conditions["vace_frames"], conditions["vace_mask"]
        parts = [space.process_in(part) for part in latent.split(16, dim=1)]
        return torch.cat([*parts, mask], dim=1), out[3]

    return run


@pytest.mark.parametrize(
    "given", [(), ("video",), ("video", "mask"), ("reference",), ("video", "mask", "reference")]
)
def test_channels_equal_comfyuis(embeds, from_comfyui, given):
    ours = {
        "video": ("input_frames", pictures()),
        "mask": ("input_masks", masks()),
        "reference": ("ref_images", pictures(1, seed=1)),
    }
    theirs = {
        "input_frames": "control_video",
        "input_masks": "control_masks",
        "ref_images": "reference_image",
    }
    inputs = dict(ours[name] for name in given)
    expected, trimmed = from_comfyui(**{theirs[name]: value for name, value in inputs.items()})
    found = embeds(**inputs)
    assert found.inputs[VACE].leading_frames == trimmed
    assert float((channels(found) - expected).abs().max()) < 1e-4


def test_fewer_frames_and_masks_equal_comfyuis(embeds, from_comfyui):
    inputs = {"input_frames": pictures(3), "input_masks": masks(2)}
    expected, _ = from_comfyui(control_video=pictures(3), control_masks=masks(2))
    assert float((channels(embeds(**inputs)) - expected).abs().max()) < 1e-4


def test_strength_and_steps_are_taken(embeds):
    context = context_of(embeds(strength=[0.5, 0.25], vace_start_percent=0.2, vace_end_percent=0.6))
    assert context.strength == [0.5, 0.25]
    assert context.steps == StepRange(0.2, 0.6)


def test_sizes_the_model_cannot_make_are_snapped_and_said(embeds, caplog):
    geometry = embeds(width=60, height=40, num_frames=7).geometry
    assert (geometry.width, geometry.height, geometry.frames) == (48, 32, 5)
    assert "width 60 is not a multiple of 16: rounded to 48" in caplog.text


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"input_frames": pictures(9)}, "9 given, the first 5 are used"),
        ({"input_frames": pictures(2)}, "2 given, the video has 5: the others are made anew"),
        ({"input_frames": pictures(5, 20, 20)}, "input_frames 20x20: resized to 48x32"),
        ({"input_masks": masks(8)}, "8 given, the video has 5 frames: the first are used"),
        ({"input_masks": masks(3)}, "3 given, the video has 5 frames: the others are made anew"),
    ],
)
def test_any_size_and_length_is_fitted_and_said(embeds, caplog, inputs, said):
    assert channels(embeds(**inputs)).shape == (1, 96, 2, 4, 6)
    assert said in caplog.text


def test_what_fits_is_taken_without_a_word(embeds, caplog):
    embeds(input_frames=pictures(), input_masks=masks(1, 7, 9), ref_images=pictures(1, 9, 9))
    assert not caplog.records


def test_without_pictures_both_parts_are_grey_and_all_is_made_anew(embeds, encoder):
    context = context_of(embeds())
    grey = encoder.encode(torch.full((FRAMES, HEIGHT, WIDTH, 3), 0.5))
    assert torch.equal(context.inactive.values, grey)
    assert torch.equal(context.reactive.values, grey)
    assert bool((context.mask.values == 1).all())


def test_a_transparency_channel_is_left_out(embeds):
    seen = torch.cat([pictures(), torch.zeros(FRAMES, HEIGHT, WIDTH, 1)], dim=-1)
    assert torch.equal(channels(embeds(input_frames=seen)), channels(embeds(input_frames=pictures())))


def test_each_reference_has_a_latent_frame_in_the_order_given(embeds, encoder):
    images = pictures(2)
    context = context_of(embeds(ref_images=images))
    assert len(context.references) == 2
    for image, latent in zip(images.split(1), context.references, strict=True):
        assert torch.equal(latent, encoder.encode(image))


def test_references_as_one_picture_have_one_latent_frame(embeds):
    assert embeds(ref_images=pictures(2), reference_layout="one picture").inputs[VACE].leading_frames == 1


def test_prompts_made_for_the_predecessor_have_one_picture_and_that_is_said(embeds, caplog):
    value = embeds(ref_images=pictures(2), reference_layout="").inputs[VACE]
    assert value.leading_frames == 1
    assert "all ref_images are in one picture" in caplog.text


@pytest.mark.parametrize("layout", ["separate frames", "one picture", None])
def test_a_single_reference_is_the_same_in_every_layout(embeds, layout):
    found = embeds(ref_images=pictures(1, 20, 20), reference_layout=layout)
    assert torch.equal(channels(found), channels(embeds(ref_images=pictures(1, 20, 20))))


def test_a_reference_of_another_aspect_ratio_stands_on_white(nodes, monkeypatch, embeds):
    seen = []
    original = nodes._references
    monkeypatch.setattr(nodes, "_references", lambda *given: seen.extend(original(*given)) or seen)
    embeds(ref_images=torch.zeros(1, HEIGHT, HEIGHT, 3))
    (picture,) = seen
    assert picture.shape == (1, HEIGHT, WIDTH, 3)
    assert bool((picture[:, :, :4] == 1).all())
    assert bool((picture[:, :, -4:] == 1).all())
    assert not picture[:, :, 12:-12].any()


def test_contexts_are_chained_in_order(embeds):
    first = embeds(strength=0.5)
    both = embeds(strength=0.25, prev_vace_embeds=first).inputs[VACE]
    assert [context.strength for context in both.contexts] == [0.5, 0.25]
    assert len(first.inputs[VACE].contexts) == 1


def test_other_inputs_of_chained_embeds_stay(embeds):
    phantom = PhantomInput((torch.zeros(1, 16, 1, 4, 6),))
    found = embeds(prev_vace_embeds=embeds().with_input(PHANTOM, phantom))
    assert found.inputs[PHANTOM] is phantom
    assert isinstance(found.inputs[VACE], VaceInput)


def test_tiles_are_asked_of_the_vae(nodes, embeds, monkeypatch):
    asked = []

    class Encoder:
        spatial_stride, latent_channels = 8, 16

        def encode(self, images, *, tiling):
            asked.append(tiling)
            return torch.zeros(1, 16, 2, HEIGHT // 8, WIDTH // 8)

    monkeypatch.setattr(nodes, "as_video_vae", lambda _vae: Encoder())
    embeds(input_frames=pictures(), tiled_vae=True)
    assert [tiling.tile_x for tiling in asked] == [272, 272]


@pytest.mark.parametrize("name", ["input_frames", "ref_images"])
def test_what_are_no_pictures_is_refused_by_the_input(embeds, name):
    with pytest.raises(Exception, match=f"WanVideo VACE Encode: {name}: expected pictures"):
        embeds(**{name: torch.zeros(3, 4)})


def test_no_vae_is_refused(embeds):
    with pytest.raises(Exception, match="no VAE connected"):
        embeds(vae=None)


@pytest.mark.parametrize("layout", ["separate frames", "one picture", "", None, ["node", 0]])
def test_layouts_and_the_empty_value_are_accepted(nodes, layout):
    assert nodes.WanVideoVACEEncode.validate_inputs(reference_layout=layout) is True


def test_another_layout_is_refused_before_the_run(nodes):
    assert "pile" in nodes.WanVideoVACEEncode.validate_inputs(reference_layout="pile")

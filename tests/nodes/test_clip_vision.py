"""Image encoder nodes, with this pack's CLIP and with ComfyUI's."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill
from comfyui_wanvideo.tools.tiny.vision import VisionSize, to_hf, vision
from safetensors.torch import load_file, save_file

SIZE = VisionSize(layers=3, feed_forward=64, image=56, out=32)
TOKENS, WIDTH = 17, 1280
RELATIVE_ERROR = 1e-5


@pytest.fixture(scope="session")
def weights():
    return fill.tensors(vision(SIZE), file="vision", seed=1)


@pytest.fixture
def folders(comfyui_path, monkeypatch, tmp_path):
    """Empty ``models/clip_vision`` and ``models/text_encoders``, by name."""
    import folder_paths

    for name in ("clip_vision", "text_encoders"):
        (tmp_path / name).mkdir()
        entry = ([str(tmp_path / name)], folder_paths.supported_pt_extensions)
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, entry)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    return tmp_path


@pytest.fixture
def clip_file(folders, weights):
    """A small random tower of ViT-H's width in ``models/clip_vision``; returns its path."""
    path = folders / "clip_vision" / "tiny_clip.safetensors"
    save_file(weights, path)
    return path


@pytest.fixture
def nodes(node_module):
    return node_module("clip_vision")


@pytest.fixture
def loader(nodes):
    def run(name, precision="fp32", **more):
        return nodes.LoadWanVideoClipTextEncoder.execute(model_name=name, precision=precision, **more)[0]

    return run


@pytest.fixture
def ours(loader, clip_file):
    return loader(clip_file.name)


@pytest.fixture
def cores(clip_file):
    """The same weights in ComfyUI's own image encoder, as Load CLIP Vision makes it."""
    return core_model(load_file(clip_file), WIDTH)


def core_model(weights, width, heads=16):
    import comfy.clip_vision

    sizes = {
        "hidden_size": width,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": heads,
        "hidden_act": "gelu",
        "num_channels": 3,
        "patch_size": 14,
        "image_size": 56,
        "projection_dim": 32,
        "model_type": "clip_vision_model",
    }
    with torch.inference_mode(False):
        model = comfy.clip_vision.ClipVisionModel(sizes)
        model.model.float()
        model.dtype = torch.float32
        missing, unexpected = model.load_sd(to_hf(weights))
    assert not missing
    assert not unexpected
    return model


def picture(seed=0, height=60, width=80, count=1):
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def encode(nodes, clip, image=None, **more):
    inputs = {
        "strength_1": 1.0,
        "strength_2": 1.0,
        "crop": "center",
        "combine_embeds": "average",
        "force_offload": True,
        **more,
    }
    image = picture() if image is None else image
    return nodes.WanVideoClipVisionEncode.execute(clip_vision=clip, image_1=image, **inputs)[0]


def difference(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_rows_are_those_of_comfyuis_last_but_one_layer(nodes, ours, cores):
    found = encode(nodes, ours).rows
    output = cores.encode_image(picture())
    assert found.shape == (1, TOKENS, WIDTH)
    assert difference(found, output.penultimate_hidden_states) < RELATIVE_ERROR
    assert difference(found, output.last_hidden_state) > 1e-2


@pytest.mark.parametrize("crop", ["center", "disabled"])
def test_comfyuis_image_encoder_gives_the_same_rows_through_our_node(nodes, ours, cores, crop):
    expected = encode(nodes, ours, crop=crop).rows
    assert difference(encode(nodes, cores, crop=crop).rows, expected) < RELATIVE_ERROR


@pytest.mark.parametrize("tiles", [2, 4])
def test_comfyuis_image_encoder_gives_the_same_tiles(nodes, ours, cores, tiles):
    expected = encode(nodes, ours, tiles=tiles).rows
    assert difference(encode(nodes, cores, tiles=tiles).rows, expected) < RELATIVE_ERROR
    assert difference(expected, encode(nodes, ours).rows) > 1e-2


def test_crop_changes_the_rows(nodes, ours):
    assert difference(encode(nodes, ours, crop="disabled").rows, encode(nodes, ours).rows) > 1e-3


@pytest.mark.parametrize("crop", ["center", "none"])
def test_comfyuis_encode_node_takes_our_encoder(ours, cores, comfyui_path, crop):
    """With the code of ComfyUI's CLIPVisionEncode node."""
    found = ours.encode_image(picture(count=2), crop=crop == "center")
    expected = cores.encode_image(picture(count=2), crop=crop == "center")
    for name in ("penultimate_hidden_states", "last_hidden_state", "image_embeds"):
        assert difference(found[name], expected[name]) < RELATIVE_ERROR
    assert found.image_sizes == expected.image_sizes
    assert found.mm_projected is None


def test_our_output_is_clip_embeds_for_the_engine(ours):
    from comfyui_wanvideo.wanvideo.conditioning.clip import as_clip_embeds

    output = ours.encode_image(picture())
    found = as_clip_embeds(output, "clip_embeds").rows
    assert torch.equal(found, output.penultimate_hidden_states)


@pytest.mark.parametrize(
    ("combination", "shape"),
    [
        ("average", (1, TOKENS, WIDTH)),
        ("sum", (1, TOKENS, WIDTH)),
        ("concat", (1, 2 * TOKENS, WIDTH)),
        ("batch", (2, TOKENS, WIDTH)),
    ],
)
def test_two_pictures_of_different_size_are_combined_with_their_strengths(nodes, ours, combination, shape):
    first, second = encode(nodes, ours).rows, encode(nodes, ours, picture(1, 90, 50)).rows
    found = encode(
        nodes,
        ours,
        image_2=picture(1, 90, 50),
        combine_embeds=combination,
        strength_1=0.3,
        strength_2=2.0,
    ).rows
    weighted = torch.stack([0.3 * first[0], 2.0 * second[0]])
    expected = {
        "average": weighted.mean(0),
        "sum": weighted.sum(0),
        "concat": weighted.flatten(0, 1),
        "batch": weighted,
    }[combination]
    assert found.shape == shape
    assert difference(found, expected.view(shape)) < RELATIVE_ERROR


def test_a_batch_in_image_1_counts_as_several_pictures(nodes, ours):
    both = torch.cat([picture(0), picture(1)])
    found = encode(nodes, ours, both, combine_embeds="concat").rows
    expected = encode(nodes, ours, image_2=picture(1), combine_embeds="concat").rows
    assert difference(found, expected) < RELATIVE_ERROR


def test_a_single_picture_and_its_tiles_are_combined_like_two(nodes, ours):
    whole = encode(nodes, ours).rows
    tiles = encode(nodes, ours, tiles=2, ratio=0.0, combine_embeds="sum").rows
    found = encode(nodes, ours, tiles=2, ratio=0.5, strength_2=0.7).rows
    assert difference(found, (0.5 * whole + 0.7 * tiles) / 2) < RELATIVE_ERROR


def test_tiles_of_several_pictures_are_mixed_by_ratio(nodes, ours):
    def rows(image, **more):
        return encode(nodes, ours, image, **more).rows

    both = torch.cat([picture(0), picture(1)])
    found = rows(both, tiles=2, ratio=0.3, combine_embeds="batch")
    for index in range(2):
        whole = rows(picture(index))
        tiles = rows(picture(index), tiles=2, ratio=0.0, combine_embeds="sum")
        assert difference(found[index : index + 1], 0.3 * whole + 0.7 * tiles) < RELATIVE_ERROR


def test_one_tile_is_no_tiles(nodes, ours):
    assert torch.equal(encode(nodes, ours, tiles=1).rows, encode(nodes, ours).rows)


def test_without_a_negative_picture_there_are_no_negative_rows(nodes, ours):
    assert encode(nodes, ours).negative is None


def test_a_negative_picture_is_encoded_without_strength(nodes, ours):
    found = encode(nodes, ours, negative_image=picture(2), strength_1=0.3)
    assert difference(found.negative, encode(nodes, ours, picture(2)).rows) < RELATIVE_ERROR


@pytest.mark.parametrize("combination", ["concat", "batch"])
def test_one_negative_picture_stands_for_each_of_two(nodes, ours, combination):
    found = encode(nodes, ours, image_2=picture(1), negative_image=picture(2), combine_embeds=combination)
    once = encode(nodes, ours, picture(2)).rows
    expected = torch.cat([once, once], dim=1 if combination == "concat" else 0)
    assert found.negative.shape == found.rows.shape
    assert difference(found.negative, expected) < RELATIVE_ERROR


@pytest.mark.parametrize("combination", ["average", "sum", "concat", "batch"])
def test_the_negative_picture_in_tiles_has_the_form_of_the_positive(nodes, ours, combination):
    found = encode(nodes, ours, negative_image=picture(), tiles=2, combine_embeds=combination)
    assert difference(found.negative, found.rows) < RELATIVE_ERROR


def test_another_number_of_negative_pictures_is_refused(nodes, ours):
    with pytest.raises(
        Exception, match=r"^WanVideo ClipVision Encode: negative_image: 3 pictures against 2 in image_1 and"
    ):
        encode(nodes, ours, image_2=picture(1), negative_image=picture(count=3))


@pytest.mark.parametrize("clip", ["ours", "cores"])
@pytest.mark.parametrize("force_offload", [True, False])
def test_the_encoder_stays_loaded_only_when_asked(nodes, clip, force_offload, request, monkeypatch):
    import comfy.model_management as management

    clip = request.getfixturevalue(clip)
    monkeypatch.setattr(management, "current_loaded_models", [])
    encode(nodes, clip, force_offload=force_offload)
    assert len(management.current_loaded_models) == (0 if force_offload else 1)


def test_an_interrupt_stops_encoding(nodes, ours):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        encode(nodes, ours)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_runs_on_the_cpu(nodes, ours, loader, clip_file, precision):
    found = encode(nodes, loader(clip_file.name, precision)).rows
    assert found.dtype == torch.float32
    assert difference(found, encode(nodes, ours).rows) < 1e-2


@pytest.mark.parametrize("clip", [None, {}, "a string"])
def test_something_else_connected_is_refused_with_the_fix(nodes, clip):
    with pytest.raises(Exception, match=r"^WanVideo ClipVision Encode: clip_vision: .*expected an image enc"):
        encode(nodes, clip)


def test_an_image_encoder_of_another_width_is_named(nodes, clip_file):
    small = fill.tensors(
        vision(VisionSize(width=1024, layers=3, feed_forward=64, image=56, out=32)), file="vision", seed=1
    )
    with pytest.raises(
        Exception, match=r"clip_vision: these image embeds are 1024 wide, the model reads 1280"
    ):
        encode(nodes, core_model(small, 1024))


def test_something_else_than_pictures_is_refused_by_input(nodes, ours):
    with pytest.raises(Exception, match=r"^WanVideo ClipVision Encode: image_2: expected pictures"):
        encode(nodes, ours, image_2=torch.zeros(1, 8, 8, 1))


def test_a_clip_file_passes_the_check_under_another_case_and_slash(nodes, clip_file):
    name = f"x\\{clip_file.name.upper()}"
    assert nodes.LoadWanVideoClipTextEncoder.validate_inputs(model_name=name) is True


def test_every_layout_passes_the_check(nodes, clip_file, weights):
    bare = {key.removeprefix("visual."): tensor for key, tensor in weights.items()}
    for name, tensors in (("hf", to_hf(weights)), ("bare", bare)):
        save_file(tensors, clip_file.with_name(f"{name}.safetensors"))
        answer = nodes.LoadWanVideoClipTextEncoder.validate_inputs(model_name=f"{name}.safetensors")
        assert answer is True


def test_a_file_in_the_text_encoders_folder_is_found(nodes, loader, clip_file, folders):
    old = folders / "text_encoders" / "old_clip.safetensors"
    clip_file.rename(old)
    assert nodes.LoadWanVideoClipTextEncoder.validate_inputs(model_name=old.name) is True
    assert nodes.LoadWanVideoClipTextEncoder.fingerprint_inputs(model_name=old.name)[0] == str(old)
    assert loader(old.name).name == old.name


def test_a_missing_file_is_named_with_its_folder(nodes, clip_file):
    answer = nodes.LoadWanVideoClipTextEncoder.validate_inputs(model_name="tiny_clipp.safetensors")
    assert "is not in the folder" in answer
    assert "similar: tiny_clip.safetensors" in answer


def test_another_kind_of_file_is_found_out_before_anything_runs(nodes, clip_file):
    tensors = {
        "blocks.0.self_attn.q.weight": torch.zeros(2, 2),
        "patch_embedding.weight": torch.zeros(2, 16, 1, 2, 2),
    }
    save_file(tensors, clip_file.with_name("dit.safetensors"))
    answer = nodes.LoadWanVideoClipTextEncoder.validate_inputs(model_name="dit.safetensors")
    assert "is not a CLIP image encoder: it looks like a Wan transformer" in answer


def test_a_tower_of_another_width_is_refused_by_the_loader(nodes, loader, clip_file):
    size = VisionSize(width=160, layers=2, feed_forward=32, image=28)
    save_file(fill.tensors(vision(size), file="vision", seed=1), clip_file.with_name("small.safetensors"))
    answer = nodes.LoadWanVideoClipTextEncoder.validate_inputs(model_name="small.safetensors")
    assert "is an image encoder of width 160. Wan takes CLIP ViT-H" in answer
    with pytest.raises(
        Exception, match=r"^WanVideo CLIP Text Encoder Loader: small.safetensors: .*width 160"
    ):
        loader("small.safetensors")


def test_main_device_loads_at_once(loader, clip_file, monkeypatch):
    import comfy.model_management as management

    monkeypatch.setattr(management, "current_loaded_models", [])
    loaded = loader(clip_file.name, load_device="main_device")
    assert [entry.model for entry in management.current_loaded_models] == [loaded.managed]


def test_the_lists_of_both_folders_are_offered(nodes, clip_file, folders):
    save_file({"a": torch.zeros(1)}, folders / "text_encoders" / "umt5.safetensors")
    inputs = nodes.LoadWanVideoClipTextEncoder.define_schema().inputs
    assert inputs[0].options == ["tiny_clip.safetensors", "umt5.safetensors"]

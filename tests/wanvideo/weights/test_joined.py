"""A model file joined with files of further modules."""

import pytest
import torch
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.weights.joined import joined, require_a_place
from comfyui_wanvideo.wanvideo.weights.keys import canonical

BASE = {"blocks.0.self_attn.q.weight": torch.ones(2, 2), "patch_embedding.weight": torch.ones(2)}
VACE = {
    "vace_blocks.0.self_attn.q.weight": torch.zeros(2, 2),
    "vace_blocks.0.after_proj.weight": torch.ones(2, 2),
}


@pytest.fixture
def base(make_file):
    return canonical(make_file(BASE, "base.safetensors"))


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model.", "diffusion_model."])
def test_the_tensors_of_all_files_are_there_without_prefixes(base, make_file, prefix):
    extra = make_file({prefix + key: tensor for key, tensor in VACE.items()}, "vace.safetensors")
    assert set(joined(base, [extra])) == {*BASE, *VACE}


@pytest.mark.parametrize("prefix", ["", "model.", "diffusion_model."])
def test_a_module_without_blocks_of_its_own_loses_its_prefix(base, make_file, prefix):
    extra = make_file({prefix + "audio_proj.proj1.weight": torch.ones(2, 2)}, "audio.safetensors")
    assert "audio_proj.proj1.weight" in joined(base, [extra])


def test_each_tensor_keeps_its_type(base, make_file):
    extra = make_file({key: tensor.to(torch.float8_e5m2) for key, tensor in VACE.items()}, "vace.safetensors")
    whole = joined(base, [extra])
    assert whole.dtype("blocks.0.self_attn.q.weight") == torch.float32
    assert whole.dtype("vace_blocks.0.self_attn.q.weight") == torch.float8_e5m2


def test_scales_of_the_extra_file_get_their_current_names(base, make_file):
    extra = make_file({**VACE, "vace_blocks.0.self_attn.q.scale_weight": torch.ones(())}, "vace.safetensors")
    assert "vace_blocks.0.self_attn.q.weight_scale" in joined(base, [extra])


def test_the_joined_file_is_known_by_all_its_files(base, make_file):
    extra = make_file(VACE, "vace.safetensors")
    assert [path.name for path in joined(base, [extra]).files] == ["base.safetensors", "vace.safetensors"]


def test_a_tensor_in_both_files_is_refused_with_both_names(base, make_file):
    extra = make_file({**VACE, "patch_embedding.weight": torch.ones(2)}, "vace.safetensors")
    with pytest.raises(ModelFileError, match=r"vace\.safetensors: holds patch_embedding\.weight.*base\.safe"):
        joined(base, [extra])


def test_a_tensor_in_two_extra_files_is_refused(base, make_file):
    first, second = make_file(VACE, "one.safetensors"), make_file(VACE, "two.safetensors")
    with pytest.raises(ModelFileError, match=r"two\.safetensors: holds vace_blocks"):
        joined(base, [first, second])


@pytest.mark.parametrize("marker", ["scaled_fp8", "freqs"])
def test_a_marker_in_both_files_is_no_conflict(make_file, marker):
    first = canonical(make_file({**BASE, marker: torch.zeros(1)}, "base.safetensors"))
    second = make_file({**VACE, marker: torch.zeros(1)}, "vace.safetensors")
    assert set(joined(first, [second])) == {*BASE, *VACE, marker}


def test_an_extra_file_the_model_uses_nothing_of_is_refused_by_its_kind(base, make_file):
    extra = make_file(VACE, "vace.safetensors")
    with pytest.raises(ModelFileError, match=r"vace\.safetensors: none of its weights .* a VACE module"):
        require_a_place(base, [extra], BASE.keys())


def test_an_extra_file_of_which_something_is_used_passes(base, make_file):
    extra = make_file(VACE, "vace.safetensors")
    assert require_a_place(base, [extra], {"vace_blocks.0.after_proj.weight"}) is None

"""Transformers in GGUF files: the same result as with the unpacked weights in a plain file."""

import pytest
import torch
from comfyui_wanvideo.tools.tiny import gguf as tiny
from comfyui_wanvideo.tools.tiny.specs import DiTSize
from comfyui_wanvideo.wanvideo.attention.sdpa import sdpa
from comfyui_wanvideo.wanvideo.conditioning.conditioning import Conditioning
from comfyui_wanvideo.wanvideo.conditioning.geometry import VideoGeometry
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.transformer.context import RunOptions, RunState
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.formats.gguf import GgufFormat
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from comfyui_wanvideo.wanvideo.weights.residency import Residency
from safetensors.torch import save_file

SIZE = DiTSize(layers=2, feed_forward=256, text_width=64)
MIXED = "Q4_K_M"
TYPES = {**{kind: tiny.plain(kind) for kind in (*tiny.PACKED_TYPES, "BF16")}, MIXED: tiny.q4_k_m}
every_type = pytest.mark.parametrize("kind", TYPES)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Each type's file, written when it is first asked for."""
    folder, written = tmp_path_factory.mktemp("gguf"), {}

    def path(kind):
        if kind not in written:
            written[kind] = folder / f"{kind}.gguf"
            tiny.write_dit(written[kind], 0, type_of=TYPES[kind], flat_patches=kind == MIXED, size=SIZE)
        return written[kind]

    return path


def load(path, dtype=torch.float32):
    return load_transformer(Checkpoint.open(path), compute_dtype=dtype).transformer


def load_unpacked(path, dtype=torch.float32):
    """The same weights from a safetensors file in float32."""
    packed = Checkpoint.open(path)
    plain = path.with_suffix(".safetensors")
    save_file({key: packed.dense(key, torch.float32).contiguous() for key in packed}, plain)
    return load(plain, dtype)


def forward(model):
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, 16, 3, 6, 10, generator=generator)
    text = torch.randn(7, SIZE.text_width, generator=generator)
    conditioning = Conditioning(VideoGeometry(80, 48, 9), text=(text,))
    with torch.inference_mode():
        return model(latent, [637.25], conditioning, RunState(RunOptions(attention=sdpa)))


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


@every_type
def test_a_forward_in_float32_equals_that_of_the_unpacked_weights(files, kind):
    path = files(kind)
    assert relative_error(forward(load(path)), forward(load_unpacked(path))) < 1e-5


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "Q3_K", "IQ4_XS", MIXED])
def test_a_forward_in_bfloat16_is_near_that_of_the_unpacked_weights(files, kind):
    path = files(kind)
    found = forward(load(path, torch.bfloat16))
    assert relative_error(found, forward(load_unpacked(path))) < 2e-2


def test_matrices_of_the_blocks_stay_packed_each_in_its_own_type(files):
    model = load(files(MIXED))
    names = {
        name: layer.format.name
        for name, layer in model.blocks[0].named_modules()
        if isinstance(layer, WanLinear)
    }
    assert names["self_attn.q"] == "Q4_K"
    assert names["self_attn.v"] == "Q6_K"
    assert names["cross_attn.o"] == "Q5_K"


@every_type
def test_packed_weights_are_views_on_the_file(files, kind):
    model = load(files(kind))
    weights = [layer.weight for layer in model.blocks.modules() if isinstance(layer, WanLinear)]
    is_packed = any(isinstance(layer.format, GgufFormat) for layer in _linears(model))
    assert is_packed == (kind != "BF16")
    assert len({weight.untyped_storage().data_ptr() for weight in weights}) == 1


def _linears(model):
    return [layer for layer in model.modules() if isinstance(layer, WanLinear)]


def test_a_flattened_patch_embedding_gives_the_same_model(files, tmp_path):
    flat, deep = files(MIXED), tmp_path / "deep.gguf"
    tiny.write_dit(deep, 0, type_of=tiny.q4_k_m, size=SIZE)
    assert torch.equal(forward(load(flat)), forward(load(deep)))


@pytest.mark.parametrize("kind", ["Q5_0", MIXED])
def test_loading_to_a_device_and_back_keeps_every_byte(files, kind):
    model = load(files(kind))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    residency = Residency(model, copy=lambda tensor, _device: tensor.clone())
    residency.load("cuda:0")
    residency.unload()
    residency.load("cuda:0")
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_packed_model_takes_the_bytes_of_its_file_on_a_device(files):
    path = files("Q4_0")
    checkpoint = Checkpoint.open(path)
    blocks = sum(checkpoint.tensor(key).nbytes for key in checkpoint if checkpoint.encoding(key))
    held = sum(layer.weight.nbytes for layer in _linears(load(path)) if layer.weight.dtype == torch.uint8)
    assert held == blocks


def test_the_file_of_a_language_model_is_refused_by_its_kind(tmp_path):
    tiny.language_model(tmp_path / "llama.gguf", 0)
    with pytest.raises(ModelFileError, match=r"llama\.gguf: is not a Wan transformer: .*language model"):
        load(tmp_path / "llama.gguf")


def test_a_matrix_of_the_wrong_shape_is_named(tmp_path):
    path = tmp_path / "a.gguf"
    tiny.write_dit(path, 0, type_of=tiny.plain("Q8_0"), size=SIZE)
    content = path.read_bytes()
    name = b"blocks.0.self_attn.q.weight"
    start = content.index(name) + len(name) + 4
    assert content[start : start + 8] == (256).to_bytes(8, "little")
    path.write_bytes(content[:start] + (128).to_bytes(8, "little") + content[start + 8 :])
    with pytest.raises(ModelFileError, match=r"blocks\.0\.self_attn\.q\.weight has shape \[256, 128\]"):
        load(path)

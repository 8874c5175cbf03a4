"""The tiny-checkpoint generator."""

import pickletools
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.tools.tiny import fill, specs, spiece
from comfyui_wanvideo.tools.tiny.bad import PICKLE_MARKER
from comfyui_wanvideo.tools.tiny.make import BAD, FILES, FORMATS, main, write
from comfyui_wanvideo.wanvideo.encoders.text_encoder import load_umt5
from comfyui_wanvideo.wanvideo.errors import ModelFileError
from comfyui_wanvideo.wanvideo.load import load_transformer
from comfyui_wanvideo.wanvideo.vae.load import load_vae
from comfyui_wanvideo.wanvideo.weights.checkpoint import Checkpoint
from comfyui_wanvideo.wanvideo.weights.formats import DENSE
from comfyui_wanvideo.wanvideo.weights.linear import WanLinear
from safetensors.torch import load_file
from torch import nn

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "tiny_checkpoints.py"


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> dict[str, Path]:
    """The demo set by file name."""
    return {path.name: path for path in write(tmp_path_factory.mktemp("models"))}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory) -> dict[str, Path]:
    return {path.name: path for path in write(tmp_path_factory.mktemp("models"), [BAD])}


# names and shapes


def test_the_transformer_has_the_names_and_shapes_of_comfyui_s_wan_model(comfyui_path):
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    size = specs.DiTSize()
    model = WanModel(
        dim=size.width,
        ffn_dim=size.feed_forward,
        num_heads=size.width // 128,
        num_layers=size.layers,
        text_dim=size.text_width,
        device="meta",
        operations=comfy.ops.disable_weight_init,
    )
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert specs.dit(size) == expected


@pytest.mark.parametrize("base", [16, 96])
def test_the_vae_has_the_names_and_shapes_of_comfyui_s_wan_vae(base, comfyui_path):
    from comfy.ldm.wan.vae import WanVAE

    with torch.device("meta"):
        model = WanVAE(
            dim=base,
            z_dim=16,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            dropout=0.0,
        )
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert specs.wan21_vae(specs.VAESize(base=base)) == expected


def test_the_text_encoder_has_the_names_and_shapes_of_transformers():
    from transformers import UMT5Config, UMT5EncoderModel

    size = specs.UMT5Size()
    config = UMT5Config(
        vocab_size=size.vocabulary,
        d_model=size.width,
        d_kv=size.attention_width // size.heads,
        num_heads=size.heads,
        d_ff=size.feed_forward,
        num_layers=size.layers,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        model = UMT5EncoderModel(config)
    expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    expected.pop("encoder.embed_tokens.weight", None)  # the same table again
    assert {specs.umt5_hf_name(key): shape for key, shape in specs.umt5(size).items()} == expected


# values


def test_a_weight_does_not_depend_on_the_other_weights_of_its_file():
    shapes = specs.dit(specs.DiTSize(layers=1))
    some = dict(reversed(list(shapes.items())[:5]))
    all_of_them = fill.tensors(shapes, file="dit", seed=3)
    for key, tensor in fill.tensors(some, file="dit", seed=3).items():
        assert torch.equal(tensor, all_of_them[key])


@pytest.mark.parametrize(
    "other", [{"key": "b.weight"}, {"file": "vae"}, {"seed": 1}], ids=["key", "file", "seed"]
)
def test_a_weight_depends_on_key_file_and_seed(other):
    first = {"key": "a.weight", "file": "dit", "seed": 0}
    assert not torch.equal(
        fill.tensor(shape=(8, 8), **first), fill.tensor(shape=(8, 8), **{**first, **other})
    )


def test_the_same_seed_writes_the_same_bytes(demo, tmp_path):
    for path in write(tmp_path):
        assert path.read_bytes() == demo[path.name].read_bytes(), path.name


def test_both_text_encoders_hold_the_same_values_up_to_rounding(demo):
    hf = load_file(demo["tiny_umt5_xxl_fp16.safetensors"])
    for key, tensor in load_file(demo["tiny_umt5-xxl-enc-bf16.safetensors"]).items():
        torch.testing.assert_close(tensor.float(), hf[specs.umt5_hf_name(key)].float(), atol=1e-6, rtol=1e-2)


def test_all_values_are_finite(demo):
    for path in demo.values():
        assert all(tensor.isfinite().all() for tensor in load_file(path).values()), path.name


# the tokenizer


def test_the_tokenizer_is_the_same_each_time():
    assert spiece.train() == spiece.train()


def test_the_tokenizer_has_umt5_s_special_pieces():
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=spiece.train())
    assert [processor.id_to_piece(index) for index in range(4)] == ["<pad>", "</s>", "<s>", "<unk>"]


def test_the_tokenizer_knows_every_printable_ascii_character():
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=spiece.train())
    assert processor.unk_id() not in processor.encode("".join(chr(code) for code in range(32, 127)))


# the demo set works


def test_the_demo_set_is_below_40_mb(demo):
    assert sum(path.stat().st_size for path in demo.values()) < 40e6


def test_the_demo_transformer_loads(demo):
    file = Checkpoint.open(demo["tiny_wan21_t2v_fp32.safetensors"])
    config = load_transformer(file, compute_dtype=torch.float32).spec.config
    assert (config.dim, config.layers) == (specs.DiTSize().width, specs.DiTSize().layers)


def test_the_demo_text_encoders_fit_the_demo_transformer(demo):
    lender = demo["tiny_umt5_xxl_fp16.safetensors"]
    for name in ("tiny_umt5_xxl_fp16.safetensors", "tiny_umt5-xxl-enc-bf16.safetensors"):
        encoder = load_umt5(Checkpoint.open(demo[name]), dtype=torch.float32, other_files=[lender])
        assert encoder.width == specs.DiTSize().text_width


def test_the_demo_vae_decodes_noise_to_a_picture_of_fair_contrast(demo):
    vae = load_vae(Checkpoint.open(demo["tiny_wan21_vae_fp32.safetensors"]), dtype=torch.float32)
    noise = torch.randn(1, 16, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pixels = vae.decode(noise, device="cpu")
    assert pixels.isfinite().all()
    assert pixels.std() > 0.25
    assert (pixels.abs() > 1).float().mean() < 0.2
    assert pixels.quantile(0.02) < -0.5
    assert pixels.quantile(0.98) > 0.5


# storage formats


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.group == FORMATS], ids=lambda file: file.name
)
def test_a_file_in_every_storage_format_loads_into_layers_of_that_format(file, tmp_path):
    path = tmp_path / file.name
    file.write(path, 0)
    layers = [layer for layer in _load(path, file.folder).modules() if isinstance(layer, WanLinear)]
    packed = [layer for layer in layers if layer.format is not DENSE or layer.weight.dtype.itemsize == 1]
    assert layers
    assert packed or "shard" in file.name or "-of-" in file.name


# bad files


def test_an_evil_pickle_is_a_real_trap(bad_files):
    """Its code is read, not run: it gets ``open`` and calls it on the marker."""
    path = bad_files["bad_evil_vae.pth"]
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        steps = [(code.name, value) for code, value, _ in pickletools.genops(archive.read(name))]
    values = [value for _, value in steps]
    assert "io open" in values or {"io", "open"} <= set(map(str, values))
    assert str(path.with_name(PICKLE_MARKER)) in values
    assert "REDUCE" in [code for code, _ in steps]


def test_an_unknown_weight_is_only_warned_about(bad_files, caplog):
    _load(bad_files["bad_extra_key.safetensors"], "diffusion_models")
    assert "blocks.0.unheard_of.weight" in caplog.text


@pytest.mark.parametrize(
    "file",
    [file for file in FILES if file.group == BAD and file.name != "bad_extra_key.safetensors"],
    ids=lambda file: file.name,
)
def test_a_bad_file_is_refused_in_its_folder(file, bad_files):
    path = bad_files[file.name]
    with pytest.raises(ModelFileError):
        _load(path, file.folder)
    assert not path.with_name(PICKLE_MARKER).exists()


def _load(path: Path, folder: str) -> nn.Module:
    checkpoint = Checkpoint.open(path)
    if folder == "diffusion_models":
        return load_transformer(checkpoint, compute_dtype=torch.float32).transformer
    if folder == "vae":
        return load_vae(checkpoint, dtype=torch.float32).module
    return load_umt5(checkpoint, dtype=torch.float32).module


# the command


def test_the_program_writes_only_what_is_asked_for(tmp_path):
    asked = ["--out", str(tmp_path), "--only", "bad_web_page", "bad_empty.safetensors"]
    subprocess.run([sys.executable, str(PROGRAM), *asked], check=True)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {
        "bad_web_page.safetensors",
        "bad_empty.safetensors",
    }


def test_an_unknown_name_lists_the_known_ones(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--only", "nonsense"])
    assert "tiny_wan21_t2v_fp32.safetensors" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())

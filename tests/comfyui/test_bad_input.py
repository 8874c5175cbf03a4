"""What users get wrong, through the HTTP API: a sentence that names the node, the input and the way out."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfyui_wanvideo.tools.tiny import make

from .graphs import VAE, decode, node, text_to_images, text_to_latent, vae_loader

ROOT = Path(__file__).resolve().parents[2]
LATENT = ["sampler", 0]
RAW_TEXT = ("Traceback", "mat1 and mat2", "size of tensor", "object has no attribute", "KeyError")


@pytest.fixture(scope="module", autouse=True)
def bad_models(comfy):
    """The generator's bad files, beside the good ones."""
    script = ROOT / "tools" / "tiny_checkpoints.py"
    subprocess.run(
        [sys.executable, script, "--out", comfy.base / "models", "--only", "bad"],
        check=True,
        capture_output=True,
    )


def refusal(comfy, prompt, *, keep=LATENT):
    """The message of a run that fails, checked to name its node and to hold nothing raw."""
    run = comfy.run(prompt, keep={"x": keep})
    assert run.status in ("error", "refused"), run.status
    assert all(error.class_type for error in run.errors)
    assert not [raw for raw in RAW_TEXT if raw in run.message], run.message
    return run.message


def absent(words, message):
    """The words that the message lacks, in any case."""
    return [word for word in words if word.lower() not in message.lower()]


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("no_such_file.safetensors", ("model", "no_such_file", "diffusion_models")),
        ("bad_web_page.safetensors", ("bad_web_page", "web page")),
        ("bad_empty.safetensors", ("bad_empty", "empty")),
        ("bad_truncated.safetensors", ("bad_truncated", "bytes")),
        ("bad_missing_key.safetensors", ("bad_missing_key", "missing")),
        ("bad_wrong_shape.safetensors", ("bad_wrong_shape", "shape", "expected")),
        ("bad_nan.safetensors", ("bad_nan", "NaN")),
        ("bad_evil_dit.pth", ("bad_evil_dit", "weights_only")),
        ("bad_half-00001-of-00002.safetensors", ("bad_half", "missing", "00002-of-00002")),
        ("bad_scale_shape.safetensors", ("bad_scale_shape", "weight_scale", "shape", "expected")),
        ("bad_comfy_format.safetensors", ("bad_comfy_format", "int3_spiral")),
        ("bad_int8.safetensors", ("bad_int8", "integer")),
        ("bad_unknown_type.gguf", ("bad_unknown_type", "type")),
        ("bad_truncated.gguf", ("bad_truncated", "bytes")),
        ("bad_language_model.gguf", ("bad_language_model",)),
    ],
)
def test_a_bad_model_file_is_refused_by_name(comfy, file, words):
    message = refusal(comfy, text_to_latent(model=file))
    assert absent(words, message) == [], message


def test_a_model_file_with_an_unknown_weight_runs_and_says_so(comfy):
    run = comfy.run(text_to_latent(model="bad_extra_key.safetensors", seed=200), keep={"x": LATENT})
    assert run.status == "success", run.message
    assert "unexpected" in run.log


@pytest.mark.parametrize("file", ["bad_dit_as_umt5.safetensors", "bad_plain_t5.safetensors"])
def test_another_model_as_text_encoder_is_refused(comfy, file):
    message = refusal(comfy, text_to_latent(text_encoder=file))
    assert absent(["UMT5 text encoder", file.split(".")[0]], message) == [], message


def test_a_pickle_that_runs_code_is_refused_as_text_encoder(comfy):
    message = refusal(comfy, text_to_latent(text_encoder="bad_evil_umt5.pth"))
    assert absent(["bad_evil_umt5", "weights_only"], message) == [], message


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("bad_dit_as_vae.safetensors", ("VAE", "transformer")),
        ("bad_evil_vae.pth", ("bad_evil_vae", "weights_only")),
    ],
)
def test_another_file_as_vae_is_refused(comfy, file, words):
    prompt = {"in": comfy.put_tensors(samples=torch.randn(1, 16, 1, 6, 8)), "vae": vae_loader(file)}
    prompt["decode"] = decode(["vae", 0], ["in", 0])
    message = refusal(comfy, prompt, keep=["decode", 0])
    assert absent(words, message) == [], message


def test_a_latent_of_the_other_vae_is_refused_before_decoding(comfy):
    prompt = {"in": comfy.put_tensors(samples=torch.randn(1, 48, 1, 6, 8)), "vae": vae_loader()}
    prompt["decode"] = decode(["vae", 0], ["in", 0])
    message = refusal(comfy, prompt, keep=["decode", 0])
    assert absent(["vae", "16", "48"], message) == [], message


@pytest.mark.parametrize(
    ("size", "shape", "words"),
    [
        ((100, 68, 5), (1, 16, 2, 8, 12), ("width 100", "multiple of 16", "96", "height 68", "64")),
        ((64, 64, 8), (1, 16, 2, 8, 8), ("num_frames 8", "4n+1", "5")),
    ],
)
def test_a_size_the_model_cannot_make_is_rounded_and_said(comfy, size, shape, words):
    run = comfy.run(text_to_latent(size=size, seed=201), keep={"x": LATENT})
    assert run.status == "success", run.message
    assert run.kept["x"].tensors["samples"].shape == shape
    for word in words:
        assert word in run.log


@pytest.mark.parametrize("value", ["", "restart"])
def test_the_empty_value_old_graphs_have_after_their_last_widget_changes_nothing(comfy, value):
    run = comfy.run(text_to_latent(seed=204, solver_history=value), keep={"x": LATENT})
    plain = comfy.run(text_to_latent(seed=204), keep={"x": LATENT})
    assert run.status == "success", run.message
    assert torch.equal(run.kept["x"].tensors["samples"], plain.kept["x"].tensors["samples"])


def test_an_unknown_solver_history_is_refused_by_name(comfy):
    message = refusal(comfy, text_to_latent(solver_history="carry on"))
    assert absent(["solver_history", "carry on", "restart, continue"], message) == [], message


def test_a_start_step_beyond_the_steps_is_refused(comfy):
    message = refusal(comfy, text_to_latent(start_step=9))
    assert absent(["start_step", "9", "3"], message) == [], message


def test_a_start_step_after_the_end_step_is_refused(comfy):
    message = refusal(comfy, text_to_latent(start_step=2, end_step=1))
    assert absent(["start_step", "end_step"], message) == [], message


def test_an_empty_prompt_works(comfy):
    run = comfy.run(text_to_latent(positive="", seed=202), keep={"x": LATENT})
    assert run.status == "success", run.message
    assert torch.isfinite(run.kept["x"].tensors["samples"]).all()


def test_text_of_another_width_is_refused_with_both_widths(comfy):
    prompt = text_to_latent(text_embeds=["bridge", 0])
    for name in ("t5", "text"):
        del prompt[name]
    prompt["in"] = comfy.put_tensors(samples=torch.randn(1, 7, 99))
    prompt["conditioning"] = node("TestConditioning", samples=["in", 0])
    prompt["bridge"] = node(
        "WanVideoTextEmbedBridge", positive=["conditioning", 0], negative=["conditioning", 0]
    )
    message = refusal(comfy, prompt)
    assert absent(["text_embeds", "99", "256"], message) == [], message


def test_nan_in_the_start_latent_is_said(comfy):
    samples = torch.randn(1, 16, 2, 8, 10)
    samples[0, 0, 0, 0, 0] = float("nan")
    prompt = {**text_to_latent(samples=["in", 0]), "in": comfy.put_tensors(samples=samples)}
    message = refusal(comfy, prompt)
    assert absent(["NaN", "samples"], message) == [], message


def test_samples_of_another_size_are_refused_with_both_sizes(comfy):
    prompt = text_to_latent(samples=["in", 0])
    prompt["in"] = comfy.put_tensors(samples=torch.randn(1, 16, 2, 8, 16))
    message = refusal(comfy, prompt)
    assert absent(["samples", "16"], message) == [], message


def test_denoise_without_samples_is_refused(comfy):
    message = refusal(comfy, text_to_latent(denoise_strength=0.5))
    assert absent(["denoise_strength", "samples"], message) == [], message


@pytest.mark.parametrize(
    ("loader", "words"),
    [
        (
            {"quantization": "fp8_e4m3fn_scaled"},
            ("quantization", "fp8_e4m3fn_scaled", "stored as", "disabled"),
        ),
        ({"quantization": "int8"}, ("quantization", "int8", "fp8_e5m2")),
        ({"fp8_scaling": "column"}, ("fp8_scaling", "column", "none, row, tensor")),
        ({"attention_mode": "sageattn"}, ("attention_mode", "sageattn", "not installed")),
        ({"attention_mode": "flash"}, ("attention_mode", "flash", "sdpa")),
    ],
)
def test_a_loader_option_that_cannot_work_is_refused_by_name(comfy, loader, words):
    message = refusal(comfy, text_to_latent(loader=loader))
    assert absent(words, message) == [], message


def test_the_empty_fp8_scaling_old_graphs_may_have_means_the_default(comfy):
    run = comfy.run(text_to_latent(seed=205, loader={"fp8_scaling": ""}), keep={"x": LATENT})
    assert run.status == "success", run.message


# inputs appended to nodes of the predecessor: what the empty value means (decision 0006), and another value
APPENDED = [
    ("WanVideoControlEmbeds", "length_fit", "hold", "trim"),
    ("WanVideoAddControlEmbeds", "length_fit", "hold", "trim"),
    ("WanVideoPhantomEmbeds", "guidance", "as WanVideoWrapper", "three passes"),
    ("WanVideoVACEEncode", "reference_layout", "one picture", "separate frames"),
]
MODELS = {
    "WanVideoControlEmbeds": "tiny_wan22_fun_control_fp32.safetensors",
    "WanVideoAddControlEmbeds": "tiny_wan22_fun_control_fp32.safetensors",
    "WanVideoPhantomEmbeds": "tiny_wan21_phantom_fp32.safetensors",
    "WanVideoVACEEncode": "tiny_wan21_vace_full_fp32.safetensors",
}


@pytest.fixture(scope="module")
def family_models(comfy):
    make.write(comfy.base / "models", sorted(set(MODELS.values())))


def embeds_graph(comfy, kind, **inputs):
    """A run whose embeds come from a node of this kind; what is given is shorter than the video."""
    numbers = torch.Generator().manual_seed(3)
    latent = torch.randn(1, 16, 2, 8, 10, generator=numbers)
    pictures = torch.rand(2, 64, 80, 3, generator=numbers)
    percents = {"start_percent": 0.0, "end_percent": 1.0}
    given = {
        "WanVideoControlEmbeds": {"latents": ["latent", 0], **percents},
        "WanVideoAddControlEmbeds": {"embeds": ["size", 0], "latents": ["latent", 0], **percents},
        "WanVideoPhantomEmbeds": {
            "num_frames": 17,
            "phantom_cfg_scale": 5.0,
            "phantom_start_percent": 0.0,
            "phantom_end_percent": 1.0,
            "phantom_latent_1": ["latent", 0],
        },
        "WanVideoVACEEncode": {
            "vae": ["vae", 0],
            "width": 80,
            "height": 64,
            "num_frames": 9,
            "strength": 1.0,
            "vace_start_percent": 0.0,
            "vace_end_percent": 1.0,
            "tiled_vae": False,
            "ref_images": ["pictures", 1],
        },
    }[kind]
    prompt = text_to_latent(model=MODELS[kind], size=(80, 64, 9), steps=2, image_embeds=["embeds", 0])
    prompt["latent"] = comfy.put_tensors(samples=latent)
    prompt["pictures"] = comfy.put_tensors(image=pictures)
    prompt["vae"], prompt["embeds"] = vae_loader(), node(kind, **given, **inputs)
    if kind == "WanVideoControlEmbeds":  # alone it makes a video of its own length
        prompt["sampler"]["inputs"]["image_embeds"] = ["size", 0]
        prompt["size"]["inputs"]["control_embeds"] = ["embeds", 0]
    return prompt


@pytest.mark.parametrize(("kind", "name", "meaning", "other"), APPENDED)
def test_the_empty_value_of_an_appended_input_has_its_meaning(
    comfy, family_models, kind, name, meaning, other
):
    runs = [
        comfy.run(embeds_graph(comfy, kind, **{name: v}), keep={"x": LATENT}) for v in ("", meaning, other)
    ]
    assert [run.message for run in runs if run.status != "success"] == []
    empty, named, another = (run.kept["x"].tensors["samples"] for run in runs)
    assert torch.equal(empty, named)
    assert not torch.equal(empty, another)


@pytest.mark.parametrize(("kind", "name", "meaning", "other"), APPENDED)
def test_an_unknown_value_of_an_appended_input_is_refused_by_name(comfy, kind, name, meaning, other):
    message = refusal(comfy, embeds_graph(comfy, kind, **{name: "sideways"}))
    assert absent([name, "sideways", meaning, other], message) == [], message


EXTRA_MODELS = [("WanVideoExtraModelSelect", "extra_model"), ("WanVideoVACEModelSelect", "vace_model")]


@pytest.mark.parametrize(("kind", "name"), EXTRA_MODELS)
def test_an_extra_model_that_fits_nothing_is_refused_with_its_kind(comfy, kind, name):
    models = comfy.base / "models"
    shutil.copy(models / "vae" / VAE, models / "diffusion_models" / "a_vae.safetensors")
    prompt = text_to_latent(loader={name: ["extra", 0]})
    prompt["extra"] = node(kind, **{name: "a_vae.safetensors"})
    message = refusal(comfy, prompt)
    assert absent(["a_vae.safetensors", "Wan 2.1 VAE"], message) == [], message


@pytest.mark.parametrize(("kind", "name"), EXTRA_MODELS)
def test_a_pickle_that_runs_code_is_refused_as_extra_model(comfy, kind, name):
    prompt = text_to_latent(loader={name: ["extra", 0]})
    prompt["extra"] = node(kind, **{name: "bad_evil_dit.pth"})
    message = refusal(comfy, prompt)
    assert absent(["bad_evil_dit", "weights_only"], message) == [], message


def test_an_unknown_scheduler_is_refused_by_name(comfy):
    message = refusal(comfy, text_to_latent(scheduler="ddim"))
    assert absent(["scheduler", "ddim"], message) == [], message


@pytest.mark.parametrize("option", [{"bidirectional_sampling": True}, {"video_attention_split_steps": "1,2"}])
def test_an_experimental_option_of_a_later_version_is_refused_by_name(comfy, option):
    prompt = text_to_latent(experimental_args=["options", 0])
    values = {
        "video_attention_split_steps": "",
        "cfg_zero_star": False,
        "use_zero_init": False,
        "zero_star_steps": 0,
        "use_fresca": False,
        "fresca_scale_low": 1.0,
        "fresca_scale_high": 1.25,
        "fresca_freq_cutoff": 20,
        "use_tcfg": False,
        "raag_alpha": 0.0,
        "bidirectional_sampling": False,
        "temporal_score_rescaling": False,
        "tsr_k": 0.95,
        "tsr_sigma": 1.0,
    }
    prompt["options"] = node("WanVideoExperimentalArgs", **{**values, **option})
    message = refusal(comfy, prompt)
    assert absent([next(iter(option))], message) == [], message


def test_a_failed_run_leaves_a_server_that_works(comfy):
    message = refusal(comfy, text_to_latent(start_step=9, seed=203))
    assert absent(["start_step"], message) == [], message
    run = comfy.run(text_to_images(seed=203), keep={"x": ["decode", 0]})
    assert run.status == "success", run.message

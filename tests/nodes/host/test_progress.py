"""Progress bar, previews and live text."""

import sys
from types import SimpleNamespace

import pytest
import torch


@pytest.fixture
def sent(comfyui_path, monkeypatch):
    """Calls of ComfyUI's progress hook."""
    import comfy.utils

    calls = []

    def hook(value, total, preview, node_id=None):
        calls.append((value, total, preview))

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    return calls


@pytest.fixture
def previews(comfyui_path, monkeypatch):
    """Previews on, as with --preview-method latent2rgb."""
    import latent_preview

    monkeypatch.setattr(latent_preview.args, "preview_method", latent_preview.LatentPreviewMethod.Latent2RGB)


def latent(frames=3, channels=16):
    return torch.randn(1, channels, frames, 4, 6)


def test_steps_reach_the_progress_bar(host, sent):
    progress = host.Progress(4)
    progress.update(1)
    progress.update(4)
    assert [(value, total) for value, total, _ in sent] == [(1, 4), (4, 4)]


@pytest.mark.parametrize("channels", [16, 48])
def test_a_preview_is_sent_for_both_latent_spaces(host, sent, previews, channels):
    host.Progress(2, latent_channels=channels).update(1, latent=latent(channels=channels))
    kind, image, _ = sent[0][2]
    assert kind == "JPEG"
    assert image.size[0] > 0


def test_preview_colours_are_those_of_comfyui(host, sent, previews):
    import comfy.latent_formats
    import latent_preview

    x0 = latent(frames=1)
    host.Progress(2, latent_channels=16).update(1, latent=x0)
    expected = latent_preview.get_previewer(torch.device("cpu"), comfy.latent_formats.Wan21())
    assert expected is not None
    assert sent[0][2][1].tobytes() == expected.decode_latent_to_preview(x0).tobytes()


def test_no_preview_is_made_when_previews_are_off(host, sent):
    host.Progress(2, latent_channels=16).update(1, latent=latent())
    assert sent[0][2] is None


def test_no_preview_is_made_when_nobody_listens(host, previews, monkeypatch):
    import comfy.utils
    import latent_preview

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", None)
    asked = []
    monkeypatch.setattr(latent_preview, "get_previewer", lambda *a: asked.append(a))
    host.Progress(2, latent_channels=16).update(1, latent=latent())
    assert asked == []


def test_a_failing_preview_is_logged_once_and_the_run_goes_on(host, sent, previews, monkeypatch, caplog):
    import latent_preview

    class Broken:
        def decode_latent_to_preview_image(self, preview_format, x0):
            raise ValueError("broken previewer")

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Broken())
    progress = host.Progress(2, latent_channels=16)
    progress.update(1, latent=latent())
    progress.update(2, latent=latent())
    assert [preview for _, _, preview in sent] == [None, None]
    assert caplog.text.count("The preview failed") == 1


def test_a_previewer_of_another_pack_gets_the_whole_latent(host, sent, previews, monkeypatch):
    import latent_preview

    seen = []

    class Animated:
        def decode_latent_to_preview_image(self, preview_format, x0):
            seen.append(x0.shape)

    monkeypatch.setattr(latent_preview, "get_previewer", lambda *_: Animated())
    host.Progress(2, latent_channels=16).update(1, latent=latent(frames=5))
    assert seen == [(1, 16, 5, 4, 6)]


@pytest.mark.parametrize(
    ("frames", "shape"),
    [(1, (4, 6)), (2, (4, 12)), (3, (4, 12)), (4, (8, 12)), (6, (8, 18)), (9, (12, 18)), (21, (12, 18))],
)
def test_filmstrip_holds_as_many_frames_as_there_are(node_module, frames, shape):
    strip = node_module("host.progress").filmstrip(latent(frames))
    assert strip.shape == (1, 16, 1, *shape)


def test_filmstrip_starts_with_the_first_and_ends_with_the_last_frame(node_module):
    x0 = latent(frames=21)
    strip = node_module("host.progress").filmstrip(x0)[0, :, 0]
    assert torch.equal(strip[:, :4, :6], x0[0, :, 0])
    assert torch.equal(strip[:, -4:, -6:], x0[0, :, -1])


def test_live_text_goes_to_the_running_node(host, monkeypatch):
    from comfy_execution.utils import CurrentNodeContext

    texts = []

    class Server:
        def send_progress_text(self, text, node_id):
            texts.append((text, node_id))

    module = SimpleNamespace(PromptServer=SimpleNamespace(instance=Server()))
    monkeypatch.setitem(sys.modules, "server", module)
    with CurrentNodeContext("prompt", "7"):
        host.say("step 3 of 4")
    assert texts == [("step 3 of 4", "7")]


def test_live_text_outside_a_run_is_dropped(host):
    assert host.say("nobody reads this") is None


def test_interrupt_is_raised_as_comfyuis_own(host, comfyui_path):
    import comfy.model_management as management

    management.interrupt_current_processing()
    with pytest.raises(management.InterruptProcessingException):
        host.check_interrupt()
    host.check_interrupt()


def test_out_of_memory_is_recognised(host):
    assert host.is_out_of_memory(torch.OutOfMemoryError("no room"))
    assert not host.is_out_of_memory(ValueError("shape"))

"""What all nodes have in common."""

import pytest
from comfyui_wanvideo.wanvideo.errors import InputError


@pytest.fixture
def node(node_module, host):
    """A node that does what its input says."""
    base = node_module("base")

    class Example(base.WanNode):
        @classmethod
        def define_schema(cls):
            return host.io.Schema(node_id="Example", display_name="WanVideo Example", category="test")

        @classmethod
        def run(cls, *, action):
            return action()

    return Example


def fail(error):
    raise error


def test_a_user_error_starts_with_the_nodes_name(node):
    with pytest.raises(Exception, match=r"^WanVideo Example: start_step: 9 is too much$"):
        node.execute(action=lambda: fail(InputError("start_step", "9 is too much")))


def test_a_user_error_shows_no_stack_below_the_node(node):
    with pytest.raises(Exception, match="WanVideo Example") as error:
        node.execute(action=lambda: fail(InputError("start_step", "9 is too much")))
    assert error.value.__suppress_context__
    assert error.value.__cause__ is None


def test_other_errors_pass_untouched(node):
    with pytest.raises(ZeroDivisionError):
        node.execute(action=lambda: 1 / 0)


def test_an_interrupt_passes_untouched(node):
    import comfy.model_management as management

    with pytest.raises(management.InterruptProcessingException):
        node.execute(action=lambda: fail(management.InterruptProcessingException()))


def test_the_result_is_handed_on(node, host):
    output = host.io.NodeOutput(7)
    assert node.execute(action=lambda: output) is output


def test_file_input_lists_the_folder(node_module, model_folder):
    (model_folder / "a.safetensors").write_bytes(b"x")
    assert node_module("base").model_file_input("model_name", folder="vae").options == ["a.safetensors"]

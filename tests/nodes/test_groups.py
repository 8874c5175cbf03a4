"""Node groups load one by one."""

import asyncio
import inspect
import sys
from types import ModuleType

import pytest


@pytest.fixture
def pack(node_module):
    return node_module("embeds") and sys.modules["comfyui_wanvideo.nodes"]


@pytest.fixture
def nodes(pack):
    return asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())


def test_every_group_loads(pack, nodes, caplog):
    assert pack.load_groups(pack.GROUPS) == nodes
    assert caplog.text == ""


def test_a_group_that_fails_is_logged_and_the_others_load(pack, caplog):
    found = pack.load_groups(("embeds", "no_such_group", "latent"))
    assert [node.SCHEMA.node_id for node in found] == [
        "WanVideoEmptyEmbeds",
        "WanVideoAddExtraLatent",
        "WanVideoCombineEmbeds",
        "WanVideoPreviewEmbeds",
        "WanVideoLatentReScale",
    ]
    assert "the nodes of the group 'no_such_group' are not available: No module named" in caplog.text


def test_a_group_with_a_broken_interface_is_left_out(pack, monkeypatch, caplog):
    base = sys.modules["comfyui_wanvideo.nodes.base"]

    class Broken(base.WanNode):
        @classmethod
        def define_schema(cls):
            raise ValueError("two inputs of one name")

    module = ModuleType("comfyui_wanvideo.nodes.broken")
    monkeypatch.setattr(module, "NODES", [Broken], raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert pack.load_groups(("broken",)) == []
    assert "two inputs of one name" in caplog.text


def test_node_ids_are_unique(nodes):
    ids = [node.SCHEMA.node_id for node in nodes]
    assert len(set(ids)) == len(ids)


def test_every_node_takes_the_inputs_it_declares(nodes):
    """A declared input that ``run`` does not take would be a TypeError in the middle of a graph."""
    for node in nodes:
        parameters = inspect.signature(node.run).parameters
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        missing = {given.id for given in node.SCHEMA.inputs} - set(parameters)
        assert takes_any or not missing, f"{node.SCHEMA.node_id}: {missing}"


def test_optional_inputs_have_defaults(nodes):
    for node in nodes:
        parameters = inspect.signature(node.run).parameters
        optional = [given.id for given in node.SCHEMA.inputs if given.optional and given.id in parameters]
        assert all(parameters[name].default is not inspect.Parameter.empty for name in optional)


def test_every_file_list_is_checked_by_name_and_watched(nodes):
    """Otherwise ComfyUI refuses a name saved on another machine before the node sees it."""
    loaders = ("VAELoader", "T5TextEncoder", "TextEncodeCached", "ModelLoader")
    for node in nodes:
        if node.SCHEMA.node_id.endswith(loaders):
            name = next(given.id for given in node.SCHEMA.inputs if given.id in ("model_name", "model"))
            assert name in inspect.signature(node.validate_inputs).parameters
            assert name in inspect.signature(node.fingerprint_inputs).parameters

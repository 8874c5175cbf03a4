"""ReCamMaster as a family."""

import sys

from comfyui_wanvideo.wanvideo.families import discover


def family():
    return next(family for family in discover() if family.name == "recammaster")


def test_it_is_found_without_its_nodes():
    name = "comfyui_wanvideo.wanvideo.families.recammaster.nodes"
    before = sys.modules.pop(name, None)
    try:
        family()
        assert name not in sys.modules
    finally:
        if before is not None:
            sys.modules[name] = before


def test_it_claims_no_checkpoint_before_it_can_use_one():
    assert family().capabilities == frozenset()

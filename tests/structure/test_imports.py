"""Who may import what, where import-linter does not look."""

import subprocess
import sys

from .source import PACK, ROOT, Source, imports, pack_files

COMFYUI = {
    "app",
    "comfy",
    "comfy_api",
    "comfy_api_nodes",
    "comfy_config",
    "comfy_execution",
    "comfy_extras",
    "execution",
    "folder_paths",
    "latent_preview",
    "node_helpers",
    "nodes",
    "protocol",
    "server",
    "utils",
}
DOOR = "nodes/host/"  # the only folder that knows ComfyUI
# Slow to import, or not there for everybody: imported in the function that needs them.
LATE = {"diffusers", "ftfy", "gguf", "scipy", "tokenizers", "transformers", "triton"}


def test_only_the_host_package_imports_comfyui():
    found = [
        f"{place.place} {place.module}"
        for source in pack_files()
        if not source.name.startswith(DOOR)
        for place in imports(source)
        if place.level == 0 and place.top in COMFYUI
    ]
    assert not found


def test_imports_inside_the_pack_are_relative():
    ours = {*PACK, "comfyui_wanvideo"}
    found = [
        f"{place.place} {place.module}"
        for source in pack_files()
        for place in imports(source)
        if place.level == 0 and place.top in ours - COMFYUI
    ]
    assert not found


def test_no_relative_import_leaves_the_pack():
    """Two dots too many would name ComfyUI's custom_nodes folder."""
    found = [
        f"{place.place} {'.' * place.level}{place.module}"
        for source in pack_files()
        for place in imports(source)
        if place.level > source.name.count("/") + 1
    ]
    assert not found


def test_the_pack_imports_neither_tools_nor_tests():
    found = [
        f"{place.place} {place.module}"
        for source in pack_files()
        for place in imports(source)
        if place.top in {"tools", "tests", "benchmarks", "pytest", "hypothesis"}
    ]
    assert not found


def test_optional_and_slow_libraries_are_imported_where_they_are_used():
    found = [
        f"{place.place} {place.module}"
        for source in pack_files()
        for place in imports(source)
        if place.level == 0 and place.top in LATE and not place.inside_function
    ]
    assert not found


def test_the_development_command_needs_only_the_standard_library():
    allowed = {*sys.stdlib_module_names, "development"}
    command = [ROOT / "tools" / "dev.py", *sorted((ROOT / "tools" / "development").glob("*.py"))]
    found = [
        f"{place.place} {place.module}"
        for path in command
        for place in imports(Source(path))
        # the contact sheet runs in the environment
        if place.level == 0 and place.top not in allowed and path.name != "contact_sheet.py"
    ]
    assert not found


def test_importing_the_engine_leaves_torch_and_the_gpu_alone():
    """Every module of kernels, lora and wanvideo, in a fresh interpreter."""
    code = """
import importlib, sys, types, torch
package = types.ModuleType("comfyui_wanvideo")
package.__path__ = [sys.argv[1]]
sys.modules["comfyui_wanvideo"] = package
def state():
    return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(),
            torch.initial_seed(), torch.cuda.is_initialized(), torch.backends.cudnn.benchmark,
            torch.backends.cuda.matmul.allow_tf32)
before = state()
for name in sys.argv[2:]:
    importlib.import_module(name)
assert state() == before, (before, state())
late = {"diffusers", "transformers", "triton", "scipy"} & set(sys.modules)
print(*sorted(late))
"""
    modules = [_module(source.name) for source in pack_files() if not _is_node_layer(source.name)]
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), *modules], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def _is_node_layer(name: str) -> bool:
    """Needs ComfyUI: the nodes, also those of a family, and the pack's own ``__init__.py``."""
    is_family_nodes = name.startswith("wanvideo/families/") and name.endswith("/nodes.py")
    return name.startswith(("nodes/", "__")) or is_family_nodes


def _module(name: str) -> str:
    return "comfyui_wanvideo." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

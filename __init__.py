"""ComfyUI entry point of the WanVideo node pack.

Outside ComfyUI this file does nothing, so that the engine (``wanvideo``) can be imported as
``comfyui_wanvideo.wanvideo`` by tests and tools without a server.
"""

from importlib.util import find_spec

__version__ = "0.1.0"

if __package__ and find_spec("comfy_api") and find_spec("folder_paths"):  # only ComfyUI has both
    from .nodes import comfy_entrypoint

    WEB_DIRECTORY = "./web"
    __all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]

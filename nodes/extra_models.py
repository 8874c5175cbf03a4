"""Files with further modules for a model: VACE and others that are not part of the main file."""

from __future__ import annotations

from pathlib import Path

from ..wanvideo.errors import InputError, WanError
from ..wanvideo.weights.checkpoint import Checkpoint
from . import sockets
from .base import CATEGORY, WanNode, model_file_input
from .host import GGUF, check_file, file_fingerprint, io, resolve_file

FOLDER = "diffusion_models"


def as_paths(value: object, *, input_name: str) -> tuple[Path, ...]:
    """The files a VACEPATH socket names: ours, or the list of dicts with "path" other packs make.

    Raises:
        InputError: something else.
    """
    if value is None:
        return ()
    if not isinstance(value, tuple | list):
        raise InputError(input_name, f"expected extra model files, got {type(value).__name__}")
    return tuple(_path(item, input_name) for item in value)


def _path(item: object, input_name: str) -> Path:
    if isinstance(item, dict):
        item = item.get("path")
    if not isinstance(item, Path | str):
        raise InputError(input_name, f"expected the path of a model file, got {type(item).__name__}")
    return Path(item)


class _ExtraModelNode(WanNode):
    """A node that chooses one file in the input called ``FILE_INPUT``."""

    FILE_INPUT = ""

    @classmethod
    def check(cls, name: object) -> bool | str:
        """Find the file and open its header, before anything is loaded."""
        found = check_file(FOLDER, name, input_name=cls.FILE_INPUT, extra_suffixes=GGUF)
        if found is not True or not isinstance(name, str):
            return found
        try:
            Checkpoint.open(cls.resolve(name))
        except WanError as error:
            return f"{cls.FILE_INPUT}: {error}"
        return True

    @classmethod
    def resolve(cls, name: str) -> Path:
        """Where the file is."""
        return resolve_file(FOLDER, name, input_name=cls.FILE_INPUT, extra_suffixes=GGUF)


class WanVideoExtraModelSelect(_ExtraModelNode):
    """One more file; several are chained."""

    FILE_INPUT = "extra_model"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoExtraModelSelect",
            display_name="WanVideo Extra Model Select",
            category=CATEGORY,
            description="A file with further modules for the main model, for example VACE or MTV Crafter.",
            inputs=[
                model_file_input(cls.FILE_INPUT, folder=FOLDER, extra_suffixes=GGUF),
                sockets.VaceModel.Input("prev_model", optional=True, tooltip="Further files."),
            ],
            outputs=[sockets.VaceModel.Output(display_name="extra_model")],
        )

    @classmethod
    def validate_inputs(cls, extra_model: object) -> bool | str:
        """Find the file and look at its header."""
        return cls.check(extra_model)

    @classmethod
    def fingerprint_inputs(cls, extra_model: object = None, **_: object) -> tuple[str, int, int]:
        """Choose again when the file changed."""
        return file_fingerprint(FOLDER, extra_model, extra_suffixes=GGUF)

    @classmethod
    def run(cls, extra_model: str, prev_model: object = None) -> io.NodeOutput:
        """The paths, the ones connected to `prev_model` first."""
        before = as_paths(prev_model, input_name="prev_model")
        return io.NodeOutput((*before, cls.resolve(extra_model)))


class WanVideoVACEModelSelect(_ExtraModelNode):
    """The VACE module of a model that has none."""

    FILE_INPUT = "vace_model"

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The node's interface."""
        return io.Schema(
            node_id="WanVideoVACEModelSelect",
            display_name="WanVideo VACE Module Select",
            category=CATEGORY,
            description="The VACE module, for a main model that does not hold it.",
            inputs=[model_file_input(cls.FILE_INPUT, folder=FOLDER, extra_suffixes=GGUF)],
            outputs=[sockets.VaceModel.Output(display_name="extra_model")],
        )

    @classmethod
    def validate_inputs(cls, vace_model: object) -> bool | str:
        """Find the file and look at its header."""
        return cls.check(vace_model)

    @classmethod
    def fingerprint_inputs(cls, vace_model: object = None, **_: object) -> tuple[str, int, int]:
        """Choose again when the file changed."""
        return file_fingerprint(FOLDER, vace_model, extra_suffixes=GGUF)

    @classmethod
    def run(cls, vace_model: str) -> io.NodeOutput:
        """The path."""
        return io.NodeOutput((cls.resolve(vace_model),))


NODES: list[type[WanNode]] = [WanVideoExtraModelSelect, WanVideoVACEModelSelect]

"""Base class of the pack's nodes and the parts they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..wanvideo.errors import WanError
from ..wanvideo.weights.checkpoint import Checkpoint
from .host import check_file, file_fingerprint, io, list_files, resolve_file

CATEGORY = "WanVideoWrapper"  # the menu folder of the nodes this pack succeeds


class NodeError(WanError):
    """A :class:`WanError` with the name of the node in front."""


class WanNode(io.ComfyNode):
    """A node: ``define_schema`` describes it, ``run`` does the work.

    The message of a :class:`WanError` reaches the user as "<display name>: <message>" without the
    stack below it. Every other error, and ComfyUI's interrupt, passes untouched.
    """

    if TYPE_CHECKING:  # only there for the checker: ComfyUI calls what it finds, so it must not find these

        @classmethod
        def run(cls, *_: Any, **inputs: Any) -> io.NodeOutput:
            """Do the node's work; input names are parameter names."""
            ...

        @classmethod
        def validate_inputs(cls, *_: Any, **inputs: Any) -> bool | str:
            """Optional: ``True``, or what is wrong with the values that are known before the run."""
            ...

        @classmethod
        def fingerprint_inputs(cls, *_: Any, **inputs: Any) -> object:
            """Optional: a value that changes when the node must run again."""
            ...

    @classmethod
    def execute(cls, **inputs: object) -> io.NodeOutput:
        """Called by ComfyUI."""
        try:
            return cls.run(**inputs)
        except WanError as error:
            raise NodeError(f"{cls.shown_name()}: {error}") from None

    @classmethod
    def shown_name(cls) -> str:
        """The node's title in the graph."""
        schema = getattr(cls, "SCHEMA", None) or cls.define_schema()
        return schema.display_name or schema.node_id


class ModelNameNode(WanNode):
    """A node that reads the file chosen in ``model_name``: checked before the run, read anew when changed."""

    FOLDER = ""  # ComfyUI's name of the model folder
    EXTRA_SUFFIXES: Sequence[str] = ()  # of files that ComfyUI itself does not list there

    if TYPE_CHECKING:

        @classmethod
        def check_header(cls, checkpoint: Checkpoint) -> None:
            """Raise a :class:`WanError` when the header shows that the file is not what the node takes."""
            ...

    @classmethod
    def validate_inputs(cls, model_name: object) -> bool | str:
        """Find the file and look at its header, before anything is loaded."""
        suffixes = cls.EXTRA_SUFFIXES
        found = check_file(cls.FOLDER, model_name, input_name="model_name", extra_suffixes=suffixes)
        if found is not True or not isinstance(model_name, str):
            return found
        path = resolve_file(cls.FOLDER, model_name, input_name="model_name", extra_suffixes=suffixes)
        if path.suffix.lower() not in (".safetensors", *suffixes):
            return True  # other formats have no header that could be read alone
        try:
            cls.check_header(Checkpoint.open(path))
        except WanError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, model_name: object = None, **_: object) -> tuple[str, int, int]:
        """Run again when the file changed."""
        return file_fingerprint(cls.FOLDER, model_name, extra_suffixes=cls.EXTRA_SUFFIXES)


def model_file_input(
    name: str, *, folder: str, tooltip: str = "", extra_suffixes: Sequence[str] = ()
) -> io.Combo.Input:
    """A list of the files in a model folder.

    A node with this input defines ``validate_inputs`` with a parameter of the same name that
    returns :func:`host.check_file`: that turns off ComfyUI's check against the list, so that a name
    saved on another machine can be resolved, and ``fingerprint_inputs`` that returns
    :func:`host.file_fingerprint`.
    """
    return io.Combo.Input(
        name,
        options=list_files(folder, extra_suffixes=extra_suffixes),
        tooltip=tooltip or f"A file from the models/{folder} folder.",
    )

"""ComfyUI's HTTP and websocket API: queue a prompt, follow it, fetch what it made."""

import http.client
import json
import time
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .websocket import WebSocket, WebSocketError

Prompt = Mapping[str, Mapping[str, Any]]  # API format: node id -> {"class_type", "inputs"}
FINISHED = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


@dataclass(frozen=True)
class NodeError:
    """What a node said is wrong, before the run ("validation") or in it ("execution")."""

    stage: str
    node: str | None
    class_type: str | None
    kind: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Event:
    """One message about a run: ComfyUI's name for it and its content."""

    name: str
    content: Mapping[str, Any]
    seconds: float  # since the prompt was sent


@dataclass(frozen=True)
class OutputFile:
    """A file that a node wrote, as ComfyUI's /view names it."""

    filename: str
    subfolder: str = ""
    type: str = "output"


@dataclass(frozen=True)
class Result:
    """How a run ended: "success", "error", "interrupted", or "refused" by validation."""

    status: str
    prompt_id: str | None = None
    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    errors: tuple[NodeError, ...] = ()
    events: tuple[Event, ...] = ()
    seconds: float = 0.0

    def files(self) -> list[OutputFile]:
        """Every file that the run's nodes report, in the order of the nodes."""
        return [
            OutputFile(entry["filename"], entry.get("subfolder", ""), entry.get("type", "output"))
            for output in self.outputs.values()
            for entries in output.values()
            if isinstance(entries, list)
            for entry in entries
            if isinstance(entry, Mapping) and "filename" in entry
        ]


class Client:
    """Talks to one server at `address` ("127.0.0.1:8188")."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, *, seconds: float = 60.0) -> Any:
        """GET a JSON document."""
        return json.loads(self._request("GET", path, None, seconds))

    def post(self, path: str, body: Mapping[str, Any], *, seconds: float = 60.0) -> Any:
        """POST a JSON document; returns the JSON answer, None when it is empty."""
        answer = self._request("POST", path, json.dumps(body).encode("utf-8"), seconds)
        return json.loads(answer) if answer else None

    def object_info(self) -> dict[str, Any]:
        """Every node class the server knows, by id."""
        return self.get("/object_info", seconds=120.0)

    def history(self, prompt_id: str) -> dict[str, Any]:
        """The server's record of a finished run; empty while it is not finished."""
        return self.get(f"/history/{prompt_id}").get(prompt_id, {})

    def interrupt(self) -> None:
        """Stop the running prompt."""
        self.post("/interrupt", {})

    def free(self) -> None:
        """Unload all models and forget all cached results, at the next idle moment."""
        self.post("/free", {"unload_models": True, "free_memory": True})

    def view(self, file: OutputFile) -> bytes:
        """The content of a file that a node wrote."""
        query = urllib.parse.urlencode(
            {"filename": file.filename, "subfolder": file.subfolder, "type": file.type}
        )
        return self._request("GET", f"/view?{query}", None, 120.0)

    def execute(
        self, prompt: Prompt, *, on_event: Callable[[Event], None] | None = None, seconds: float = 600.0
    ) -> Result:
        """Run a prompt to its end.

        Args:
            prompt: nodes in API format.
            on_event: called with every message about this run, as it comes.
            seconds: the longest the run may take.
        Raises:
            TimeoutError: it took longer; the run is interrupted.
            ConnectionError: the server went away.
        """
        started = time.monotonic()
        host, port = self.address.split(":")
        client_id = (
            uuid.uuid4().hex
        )  # a new one per run: the server forgets an id when its last socket closes
        with WebSocket(host, int(port), f"/ws?clientId={client_id}", timeout=seconds) as socket:
            answer = self.post("/prompt", {"prompt": prompt, "client_id": client_id})
            refusals = tuple(_validation_errors(answer))
            prompt_id = answer.get("prompt_id")
            if prompt_id is None:
                return Result("refused", errors=refusals, seconds=time.monotonic() - started)
            events: list[Event] = []
            try:
                status = _follow(socket, prompt_id, events, on_event=on_event, until=started + seconds)
            except TimeoutError:
                self.interrupt()
                raise TimeoutError(f"the run was not finished after {seconds:.0f} s") from None
        record = self._finished_record(prompt_id)
        errors = (*refusals, *_execution_errors(events))
        outputs = record.get("outputs", {})
        return Result(status, prompt_id, outputs, errors, tuple(events), time.monotonic() - started)

    def _finished_record(self, prompt_id: str) -> dict[str, Any]:
        """The history entry, which appears shortly after the last message."""
        for _ in range(50):
            if record := self.history(prompt_id):
                return record
            time.sleep(0.1)
        return {}

    def _request(self, method: str, path: str, body: bytes | None, seconds: float) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=seconds)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        refused_prompt = response.status == 400 and path == "/prompt"
        if response.status >= 400 and not refused_prompt:
            raise ConnectionError(f"{method} {path}: {response.status} {content[:300]!r}")
        return content


def _follow(
    socket: WebSocket,
    prompt_id: str,
    events: list[Event],
    *,
    on_event: Callable[[Event], None] | None,
    until: float,
) -> str:
    """Collect messages about the run until one ends it; returns the status."""
    started = time.monotonic()
    for text in socket.messages():
        message = json.loads(text)
        content = message.get("data") or {}
        if content.get("prompt_id") == prompt_id:
            event = Event(message["type"], content, time.monotonic() - started)
            events.append(event)
            if on_event:
                on_event(event)
            if event.name in FINISHED:
                return FINISHED[event.name]
        if time.monotonic() > until:
            raise TimeoutError
    raise WebSocketError("the connection ended")


def _validation_errors(answer: Mapping[str, Any]) -> list[NodeError]:
    found = [
        NodeError(
            "validation",
            node,
            report.get("class_type"),
            error.get("type", ""),
            f"{error.get('message', '')}: {error.get('details', '')}".strip(": "),
        )
        for node, report in (answer.get("node_errors") or {}).items()
        for error in report.get("errors", [])
    ]
    top = answer.get("error")
    if top and not found:
        extra = top.get("extra_info") or {}
        message = f"{top.get('message', '')}: {top.get('details', '')}".strip(": ")
        found.append(
            NodeError(
                "validation", extra.get("node_id"), extra.get("class_type"), top.get("type", ""), message
            )
        )
    return found


def _execution_errors(events: list[Event]) -> list[NodeError]:
    return [
        NodeError(
            "execution",
            event.content.get("node_id"),
            event.content.get("node_type"),
            event.content.get("exception_type", ""),
            event.content.get("exception_message", "").strip(),
            "".join(event.content.get("traceback", [])),
        )
        for event in events
        if event.name == "execution_error"
    ]

"""The listening websocket against a scripted server."""

import base64
import hashlib
import socket
import struct
import threading

import pytest
from comfyui_wanvideo.tools.development.websocket import WebSocket, WebSocketError

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def frame(opcode: int, payload: bytes, *, final: bool = True) -> bytes:
    """A server's frame: not masked."""
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        return head + bytes([size]) + payload
    if size < 1 << 16:
        return head + bytes([126]) + struct.pack(">H", size) + payload
    return head + bytes([127]) + struct.pack(">Q", size) + payload


class Script(threading.Thread):
    """Accepts one connection, shakes hands, sends `frames`, and keeps what the client sends afterwards."""

    def __init__(self, frames: bytes, *, status: str = "101 Switching Protocols") -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.frames, self.status, self.answer = frames, status, b""
        self.start()

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection, self.listener:
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(4096)
            key = request.decode().split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
            proof = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
            head = f"HTTP/1.1 {self.status}\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {proof}\r\n\r\n"
            connection.sendall(head.encode() + self.frames)
            while received := connection.recv(4096):
                self.answer += received


def test_text_of_every_length_coding_arrives_whole():
    texts = ["short", "m" * 1000, "l" * 70_000]
    server = Script(b"".join(frame(1, text.encode()) for text in texts))
    with WebSocket("127.0.0.1", server.port, "/ws", timeout=5) as client:
        messages = client.messages()
        assert [next(messages) for _ in texts] == texts


def test_a_message_in_fragments_is_put_together_around_a_ping():
    parts = [
        frame(1, b"one ", final=False),
        frame(9, b"?"),
        frame(0, b"two ", final=False),
        frame(0, b"three"),
    ]
    server = Script(b"".join(parts))
    with WebSocket("127.0.0.1", server.port, "/ws", timeout=5) as client:
        assert next(client.messages()) == "one two three"


def test_binary_messages_are_skipped():
    server = Script(frame(2, b"picture") + frame(1, b"text"))
    with WebSocket("127.0.0.1", server.port, "/ws", timeout=5) as client:
        assert next(client.messages()) == "text"


def test_a_ping_is_answered_with_a_masked_pong_of_the_same_content():
    server = Script(frame(9, b"hello") + frame(1, b"text"))
    with WebSocket("127.0.0.1", server.port, "/ws", timeout=5) as client:
        next(client.messages())
    server.join(5)
    head, mask, content = server.answer[:2], server.answer[2:6], server.answer[6:]
    assert head == bytes([0x8A, 0x85])
    assert bytes(byte ^ mask[i % 4] for i, byte in enumerate(content)) == b"hello"


def test_the_servers_goodbye_is_an_error():
    server = Script(frame(1, b"text") + frame(8, b""))
    with WebSocket("127.0.0.1", server.port, "/ws", timeout=5) as client:
        messages = client.messages()
        next(messages)
        with pytest.raises(WebSocketError, match="closed"):
            next(messages)


def test_a_server_that_is_no_websocket_is_named():
    server = Script(b"", status="200 OK")
    with pytest.raises(WebSocketError, match="200 OK"):
        WebSocket("127.0.0.1", server.port, "/ws", timeout=5)

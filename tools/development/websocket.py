"""A websocket that only listens (RFC 6455), because the standard library has none."""

import base64
import hashlib
import os
import socket
import struct
from collections.abc import Iterator

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocketError(ConnectionError):
    """The other side is no websocket, or it closed the connection."""


class WebSocket:
    """A client connection; `messages` yields text messages and skips the rest.

    Args:
        host, port, path: where to connect, e.g. "127.0.0.1", 8188, "/ws?clientId=demo".
        timeout: seconds that one read may wait.
    Raises:
        WebSocketError: the server refused the connection.
        OSError: there is no server.
    """

    def __init__(self, host: str, port: int, path: str, *, timeout: float) -> None:
        self._socket = socket.create_connection((host, port), timeout)
        self._stream = self._socket.makefile("rb")
        try:
            self._shake_hands(host, port, path)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection without ceremony."""
        self._stream.close()
        self._socket.close()

    def messages(self) -> Iterator[str]:
        """Yield the text messages as they come.

        Raises:
            WebSocketError: the server closed the connection.
            TimeoutError: nothing came for `timeout` seconds.
        """
        parts: list[bytes] = []
        kind = TEXT
        while True:
            final, opcode, payload = self._frame()
            if opcode == CLOSE:
                raise WebSocketError("the server closed the connection")
            if opcode == PING:
                self._send(PONG, payload)
                continue
            if opcode == PONG:
                continue
            if opcode in (TEXT, BINARY):
                kind = opcode
            parts.append(payload)
            if final:
                if kind == TEXT:
                    yield b"".join(parts).decode("utf-8")
                parts = []

    def _shake_hands(self, host: str, port: int, path: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode("ascii")
        request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._socket.sendall(request.encode("ascii"))
        status = self._stream.readline()
        headers: dict[str, str] = {}
        while line := self._stream.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        proof = base64.b64encode(hashlib.sha1((key + _GUID).encode("ascii")).digest()).decode("ascii")
        if b" 101 " not in status or headers.get("sec-websocket-accept") != proof:
            raise WebSocketError(f"no websocket at {host}:{port}{path}: {status.decode('latin-1').strip()}")

    def _frame(self) -> tuple[bool, int, bytes]:
        first, second = self._read(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._read(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._read(8))
        return bool(first & 0x80), first & 0x0F, self._read(length)

    def _read(self, count: int) -> bytes:
        content = self._stream.read(count)
        if len(content) < count:
            raise WebSocketError("the connection ended")
        return content

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
        self._socket.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

"""HTTP as bytes on a socket: what no well-behaved client would send, and every byte that comes back."""

import socket
from email.message import Message
from http.client import parse_headers
from types import TracebackType
from typing import Self

from flask import Response

SECONDS = 20


class Answer(Response):
    """An answer as it came, to be looked at like those of the test client."""

    @property
    def text(self) -> str:
        return self.get_data(as_text=True)


class Connection:
    """A connection to a service on 127.0.0.1, which waits SECONDS for anything at most. A context manager.

    `receive_buffer` is in bytes: a small one makes the service wait for a reader that doesn't read.
    """

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(SECONDS)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self._received = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._received.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def say_goodbye(self) -> None:
        """Tell the service that nothing more will be sent."""
        self.socket.shutdown(socket.SHUT_WR)

    def line(self) -> bytes:
        return self._received.readline()

    def answer(self, method: str = "GET") -> Answer:
        """The next answer, to a request by `method`. Raises EOFError where the service ended the connection instead."""
        line = self.line()
        if not line:
            raise EOFError
        version, status, _reason = line.decode().split(" ", 2)
        assert version in ("HTTP/1.0", "HTTP/1.1"), line
        headers = parse_headers(self._received)
        bodiless = method == "HEAD" or status in ("204", "304") or status.startswith("1")
        body = b"" if bodiless else self._body(headers)
        return Answer([body], int(status), list(headers.items()))

    def _body(self, headers: Message) -> bytes:
        if headers["Transfer-Encoding"] == "chunked":
            chunks = []
            while size := int(self.line(), 16):
                chunks.append(self._received.read(size))
                assert self.line() == b"\r\n"
            assert self.line() == b"\r\n"
            return b"".join(chunks)
        length = headers["Content-Length"]
        body = self._received.read() if length is None else self._received.read(int(length))
        assert length is None or len(body) == int(length), "the answer was cut short"
        return body

    def read(self, count: int) -> bytes:
        """Up to `count` bytes: those that are there, or the next that come."""
        return self._received.read1(count)

    def rest(self) -> bytes:
        """All that still comes until the service ends the connection. Raises TimeoutError where it doesn't."""
        try:
            return self._received.read()
        except ConnectionResetError:
            # It was closed with something of ours unread.
            return b""


def request(line: str, *headers: str, body: bytes = b"", host: str = "127.0.0.1") -> bytes:
    """A well-formed request without a body's framing, which is up to `headers`."""
    return "\r\n".join([f"{line} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes) -> bytes:
    """`chunks` as a chunked body (RFC 9112, section 7.1)."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))

"""A proxy between the service and PostgreSQL: what went over the wire, and what if the wire fails.

`Wire` listens on a port of 127.0.0.1 and passes everything on to the PostgreSQL at a DSN. On the way it keeps the text
of every simple Query message, which is one round trip each (psycopg2 sends nothing else), may rewrite that text, and
can be slow, silent or cut on demand:

    with Wire(dsn) as wire:
        connection = psycopg2.connect(wire.dsn())
        ...
        assert len(wire.queries) == 1

It knows as much of the frontend/backend protocol 3 (PostgreSQL manual, chapter "Message Formats") as that takes:
messages of the extended query protocol and COPY pass unseen and uncounted. The client's side is plain TCP, so that
there is something to read; towards PostgreSQL it speaks TLS, unverified, where the DSN or the server wants it.
Parsing or judging SQL is left to the tests.

The proxy is a thread: a client in the same process must let go of the interpreter lock while it waits. psycopg2 does,
except in `connection.cancel()`, which would wait for ever.
"""

import asyncio
import socket
import ssl
import struct
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from psycopg2.extensions import parse_dsn

from tests.support.servers import dsn_url

SSL_REQUEST = struct.pack("!ii", 8, 80877103)
GSS_REQUEST = struct.pack("!ii", 8, 80877104)
AUTHENTICATION_OK = struct.pack("!i", 0)
AUTHENTICATION_SASL = struct.pack("!i", 10)
CHUNK = 65536

T = TypeVar("T")


class Wire:
    """A running proxy. Its methods may be called from any thread; what they ask for is done when they return.

    `queries` is the SQL of each Query message as the client sent it, oldest first. `rewrite`, if set, gives the SQL to
    send on instead. `delay` is in seconds and is spent before each message towards PostgreSQL. `rewrite` and `delay`
    may be changed at any time.
    """

    def __init__(self, dsn: str, rewrite: Callable[[str], str] | None = None, delay: float = 0.0) -> None:
        self.queries: list[str] = []
        self.rewrite = rewrite
        self.delay = delay
        self._target = parse_dsn(dsn)
        self._connections: set[asyncio.Task[Any]] = set()
        self._requesting, self._replying = asyncio.Event(), asyncio.Event()
        self._requesting.set()
        self._replying.set()
        # One event loop in one thread: unlike a pair of threads, it may read and write one TLS connection at a time.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._thread.start()
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dsn(self, database: str | None = None) -> str:
        """Give the DSN of PostgreSQL through this proxy, for its own database or another one."""
        parameters = {name: value for name, value in self._target.items() if name != "hostaddr"}
        parameters |= {"host": "127.0.0.1", "port": self.port, "sslmode": "disable"}
        if database is not None:
            parameters["dbname"] = database
        return dsn_url(parameters)

    def reset(self) -> None:
        """Forget the queries seen so far."""
        self.queries.clear()

    def hold(self) -> None:
        """Pass nothing on, in either direction, until `release`; connections stay open and can still be made."""
        self._do(self._flow(requests=False, replies=False))

    def hold_replies(self) -> None:
        """Pass requests on, but nothing that comes back."""
        self._do(self._flow(requests=True, replies=False))

    def release(self) -> None:
        """Pass on what was held back, and go on."""
        self._do(self._flow(requests=True, replies=True))

    def cut(self) -> None:
        """Reset all connections, to both sides; new ones can be made."""
        self._do(self._cut())

    def close(self) -> None:
        """Reset all connections and stop listening."""
        if self._loop.is_closed():
            return
        self._do(self._shut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _flow(self, requests: bool, replies: bool) -> None:
        for event, flowing in ((self._requesting, requests), (self._replying, replies)):
            if flowing:
                event.set()
            else:
                event.clear()

    async def _cut(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await asyncio.sleep(0)  # aborted sockets are closed in the loop's next turn

    async def _shut(self) -> None:
        self._server.close()
        await self._cut()

    async def _serve(self, client_in: StreamReader, client_out: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        writers = [client_out]
        try:
            await self._relay(client_in, client_out, writers)
        except* (OSError, EOFError, asyncio.CancelledError):
            pass  # one side is gone, or both are to go: asyncio would print it as an error of this program
        finally:
            self._connections.discard(task)
            for writer in writers:
                if task.cancelling():
                    _reset(writer)
                else:
                    writer.close()

    async def _relay(self, client_in: StreamReader, client_out: StreamWriter, writers: list[StreamWriter]) -> None:
        startup = await self._startup(client_in, client_out)
        server_in, server_out = await self._connect(writers)
        await self._request(server_out, startup)
        async with asyncio.TaskGroup() as both_ways:  # the first to fail ends the other
            both_ways.create_task(self._requests(client_in, server_out))
            both_ways.create_task(self._replies(server_in, client_out))

    async def _startup(self, client_in: StreamReader, client_out: StreamWriter) -> bytes:
        """Read the client's first packet, which alone has no type byte, declining encryption before it."""
        while True:
            length = await client_in.readexactly(4)
            packet = length + await client_in.readexactly(_size(length))
            if packet not in (SSL_REQUEST, GSS_REQUEST):
                return packet
            await self._reply(client_out, b"N")

    async def _connect(self, writers: list[StreamWriter]) -> tuple[StreamReader, StreamWriter]:
        host = self._target.get("hostaddr") or self._target["host"]
        port, sslmode = int(self._target.get("port", 5432)), self._target.get("sslmode", "prefer")
        if host.startswith("/"):
            reader, writer = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            reader, writer = await asyncio.open_connection(host, port)
        writers.append(writer)
        if not host.startswith("/") and sslmode not in ("disable", "allow"):
            writer.write(SSL_REQUEST)
            if await reader.readexactly(1) == b"S":
                await writer.start_tls(_unverified_tls())
            elif sslmode != "prefer":
                raise ConnectionError("the server has no TLS")
        return reader, writer

    async def _requests(self, client_in: StreamReader, server_out: StreamWriter) -> None:
        while True:
            kind, body = await _message(client_in)
            if kind == b"Q":
                body = self._query(body)
            await self._request(server_out, _framed(kind, body))

    def _query(self, body: bytes) -> bytes:
        # surrogateescape: what is no UTF-8 in a client's encoding comes out as it went in.
        text = body.removesuffix(b"\0").decode(errors="surrogateescape")
        self.queries.append(text)
        sent = self.rewrite(text) if self.rewrite else text
        return sent.encode(errors="surrogateescape") + b"\0"

    async def _replies(self, server_in: StreamReader, client_out: StreamWriter) -> None:
        kind = body = b""
        while kind != b"E" and (kind, body) != (b"R", AUTHENTICATION_OK):
            kind, body = await _message(server_in)
            if kind == b"R" and body.startswith(AUTHENTICATION_SASL):
                # Over TLS the server also offers to bind the password to the channel, which is not the client's.
                body = body.replace(b"SCRAM-SHA-256-PLUS\0", b"")
            await self._reply(client_out, _framed(kind, body))
        while chunk := await server_in.read(CHUNK):
            await self._reply(client_out, chunk)
        raise EOFError

    async def _request(self, server_out: StreamWriter, data: bytes) -> None:
        await asyncio.sleep(self.delay)
        await self._requesting.wait()
        await _pass(server_out, data)

    async def _reply(self, client_out: StreamWriter, data: bytes) -> None:
        await self._replying.wait()
        await _pass(client_out, data)


async def _pass(writer: StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _message(reader: StreamReader) -> tuple[bytes, bytes]:
    header = await reader.readexactly(5)
    return header[:1], await reader.readexactly(_size(header[1:]))


def _size(length: bytes) -> int:
    """Give the bytes that follow a length field; it counts itself."""
    return int.from_bytes(length, "big") - 4


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4, "big") + body


def _unverified_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _reset(writer: StreamWriter) -> None:
    # With no time to linger, closing sends RST rather than FIN, as a crashed machine or a firewall would. There may be
    # no socket any more where the other side was first.
    if (connected := writer.get_extra_info("socket")) and connected.fileno() != -1:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

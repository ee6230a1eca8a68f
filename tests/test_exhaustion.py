"""Clients that take their time, against gunicorn as it is shipped: they cost it no thread, so others are served.

64 sockets are four for each of the threads that a service of two workers has by default. Those who stall are cut off
in the end: at the request deadline of 15 s, or as soon as their answer is known. Nobody who idles is.
"""

import contextlib
import re
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson
import pytest
from flask import Flask

from tests.conftest import SECRET, User, user_of
from tests.live import Service
from tests.raw import Connection, chunked, request

MANY, CROWD = 64, 1000
SERVED_SECONDS = 6
# The request deadline, and some time to notice it.
CUT_SECONDS = 20
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
TOKEN = "Authorization: Bearer {token}"


@dataclass(frozen=True)
class Stalling:
    """A way to take one's time: what is sent at once, then what is sent again and again."""

    opening: bytes
    drip: bytes = b""
    statuses: tuple[bytes, ...] = (b"408",)

    def opened(self, user: User) -> bytes:
        return self.opening.replace(b"{token}", user.token.encode())


def head(*lines: str) -> bytes:
    """A request's head, but for its end."""
    return request("GET /api/tasks", *lines)[:-2]


def body(length: str, sent: bytes, *lines: str, path: str = "/api/tasks") -> bytes:
    return request(f"POST {path}", JSON, length, *lines, body=sent)


STALLING = {
    "half a head": Stalling(head(TOKEN)),
    "half a request line": Stalling(b"GET /api"),
    "a trickled head": Stalling(head(TOKEN) + b"X-A: ", b"a"),
    "a trickled body, no token": Stalling(body("Content-Length: 100", b"{"), b" ", (b"401", b"408")),
    "a trickled body": Stalling(body("Content-Length: 100", b"{", TOKEN), b" "),
    "trickled chunks, no token": Stalling(body(CHUNKED, b"1\r\n{\r\n"), b"1\r\n \r\n", (b"401", b"408")),
    "trickled chunks": Stalling(body(CHUNKED, b"1\r\n{\r\n", TOKEN), b"1\r\n \r\n"),
    "a trickled chunk size": Stalling(body(CHUNKED, b"", TOKEN), b"0"),
    "half a file": Stalling(
        body("Content-Length: 1000000", b"[" + b" " * 500_000, TOKEN, path="/api/tasks/import")
    ),
    "a body that is too large, and never comes": Stalling(body("Content-Length: 2000000", b"", TOKEN), b"", (b"413",)),
}  # fmt: skip


@dataclass
class Stalled:
    """A connection that stalls in one of these ways, and what has become of it."""

    connection: Connection
    way: Stalling
    received: bytes = b""
    ended_after: float | None = None
    began: float = field(default_factory=time.monotonic)

    def go_on(self) -> None:
        """Send and receive what there is, without waiting."""
        try:
            if self.way.drip:
                self.connection.send(self.way.drip)
            while select.select([self.connection.socket], [], [], 0)[0]:
                data = self.connection.socket.recv(65536)
                self.received += data
                if not data:
                    self.ended()
                    return
        except (ConnectionResetError, BrokenPipeError):
            self.ended()

    def ended(self) -> None:
        self.ended_after = time.monotonic() - self.began
        self.connection.close()


@pytest.fixture(scope="module")
def service(database_url: str) -> Iterator[Service]:
    """The service with the limit on open files that it is given, and afterwards as many for the clients as need be."""
    with Service(database_url, SECRET, RATELIMIT_DEFAULT="100000/minute") as running:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * CROWD if hard == resource.RLIM_INFINITY else min(2 * CROWD, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        yield running
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def crowd(service: Service) -> Iterator["Crowd"]:
    made = Crowd(service)
    yield made
    made.disperse()


class Crowd:
    """Many connections, gone with the end of the test."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.all: list[Connection] = []
        self._over = threading.Event()
        self._dripping: list[threading.Thread] = []

    def connect(self, count: int, opening: bytes = b"", receive_buffer: int | None = None) -> list[Connection]:
        made = []
        for _ in range(count):
            made.append(Connection(self.service.port, receive_buffer))
            self.all.append(made[-1])
            if opening:
                made[-1].send(opening)
        return made

    def drip(self, connections: list[Connection], data: bytes) -> None:
        """Send `data` to all of them, again and again."""

        def forever() -> None:
            while not self._over.wait(0.1):
                for connection in connections:
                    with contextlib.suppress(OSError):
                        connection.send(data)

        self._dripping.append(threading.Thread(target=forever, daemon=True))
        self._dripping[-1].start()

    def disperse(self) -> None:
        self._over.set()
        for thread in self._dripping:
            thread.join(10)
        for connection in self.all:
            connection.close()


def assert_serves(service: Service, user: User) -> None:
    """Four who come now are answered in time, two of them out of the database."""
    asked = [request("GET /health/live"), request("GET /api/tasks?limit=1", f"Authorization: Bearer {user.token}")] * 2
    began = time.monotonic()
    with contextlib.ExitStack() as open_now:
        connections = [open_now.enter_context(Connection(service.port)) for _ in asked]
        for connection, message in zip(connections, asked, strict=True):
            connection.send(message)
        for connection in connections:
            connection.socket.settimeout(max(0.01, began + SERVED_SECONDS - time.monotonic()))
            assert connection.answer().status_code == 200
    assert time.monotonic() - began < SERVED_SECONDS


@pytest.mark.parametrize("way", STALLING.values(), ids=STALLING)
def test_stalling_clients_keep_nobody_waiting(service: Service, crowd: Crowd, alice: User, way: Stalling) -> None:
    connections = crowd.connect(MANY, way.opened(alice))
    if way.drip:
        crowd.drip(connections, way.drip)
    # Until all of them are at it.
    time.sleep(0.5)
    assert_serves(service, alice)


def test_idle_connections_keep_nobody_waiting(service: Service, crowd: Crowd, alice: User) -> None:
    crowd.connect(CROWD)
    assert_serves(service, alice)


def test_kept_connections_keep_nobody_waiting(service: Service, crowd: Crowd, alice: User) -> None:
    connections = crowd.connect(CROWD, request("GET /health/live"))
    assert {connection.answer().status_code for connection in connections} == {200}
    assert_serves(service, alice)


def test_where_connections_get_short_the_oldest_go(database_url: str, alice: User) -> None:
    with Service(database_url, SECRET, WEB_CONCURRENCY="1", GUNICORN_CMD_ARGS="--worker-connections 20") as running:
        connections = [Connection(running.port) for _ in range(40)]
        assert_serves(running, alice)
        assert connections[0].rest() == b""
        connections[-1].send(request("GET /health/live"))
        assert connections[-1].answer().status_code == 200
        for connection in connections:
            connection.close()


# Chunks that say what the last one says, or of one byte each: a search from each of them would take minutes.
DEAR = {
    "lines like the last chunk": b"f0000\r\n" + b"0\r\n" * 0x50000 + b"\r\n0\r\n\r\n",
    "chunks of one byte": b"1\r\n \r\n" * 150_000 + b"0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", DEAR.values(), ids=DEAR)
def test_chunks_made_to_be_dear_cost_no_more_than_others(service: Service, crowd: Crowd, chunks: bytes) -> None:
    [connection] = crowd.connect(1, body(CHUNKED, chunks))
    assert connection.answer().status_code == 401


def test_a_place_whose_client_has_left_is_taken_by_the_next(database_url: str, alice: User) -> None:
    """Of those with chunks, half as many as there are threads are served at once; the others wait in a queue."""
    whole = body(CHUNKED, chunked(b'{"title": "one"}'), TOKEN).replace(b"{token}", alice.token.encode())
    large = b"200000\r\n[" + b" " * 2**20
    with Service(database_url, SECRET, WEB_CONCURRENCY="1", WEB_THREADS="2") as running:
        holder, leaver, next_one = (Connection(running.port) for _ in range(3))
        opening = body(CHUNKED, large, TOKEN, path="/api/tasks/import").replace(b"{token}", alice.token.encode())
        for connection, message in ((holder, opening), (leaver, whole), (next_one, whole)):
            connection.send(message)
            # Until it has its place, or stands in the queue.
            time.sleep(0.5)
        assert not select.select([leaver.socket, next_one.socket], [], [], 0)[0]
        # At the end with a reset: after a mere end of what it sends it may still want its answer.
        leaver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaver.close()
        holder.close()
        assert next_one.answer().status_code == 201
        next_one.close()


# The same tasks; the export is written while it is sent.
LARGE = ["/api/tasks", "/api/tasks/export"]


@pytest.fixture(scope="module")
def rich(app: Flask) -> User:
    """Somebody with 6 MB of tasks, more than the buffers of two sockets take (4 MiB and what the client asks for)."""
    user = user_of(app, "rich")
    tasks = [{"title": f"{number}", "description": "字" * 2000} for number in range(1000)]
    file = orjson.dumps(tasks)
    assert user.post("/api/tasks/import", data=file, content_type="application/json").status_code == 200
    return user


@pytest.mark.parametrize("path", LARGE)
def test_slow_readers_keep_nobody_waiting(service: Service, crowd: Crowd, rich: User, path: str) -> None:
    crowd.connect(MANY, request(f"GET {path}", f"Authorization: Bearer {rich.token}"), receive_buffer=4096)
    assert_serves(service, rich)


def test_a_slow_reader_who_has_said_all_gets_every_answer(service: Service, crowd: Crowd, rich: User) -> None:
    """RFC 9112, 9.3.2 and 9.6: also to what was asked behind an answer that it took a while to read."""
    [connection] = crowd.connect(1, receive_buffer=4096)
    connection.send(request("GET /api/tasks", f"Authorization: Bearer {rich.token}") + request("GET /health/live"))
    connection.say_goodbye()
    # Until the first answer fills what there is between the two.
    time.sleep(0.5)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**20)
    assert connection.answer().status_code == 200
    assert connection.answer().json == {"status": "ok"}
    assert connection.rest() == b""


def test_those_who_stall_are_cut_off_and_nobody_else(service: Service, crowd: Crowd, rich: User) -> None:
    """Side by side, because it takes as long as the deadline is."""
    sizes = {path: len(rich.get(path).data) for path in LARGE}
    asking = {path: request(f"GET {path}", f"Authorization: Bearer {rich.token}") for path in LARGE}
    [idle] = crowd.connect(1, request("GET /health/live"))
    assert idle.answer().status_code == 200
    not_reading = [(path, crowd.connect(1, asking[path], receive_buffer=4096)[0]) for path in LARGE]
    [steady] = crowd.connect(1, asking["/api/tasks"])
    reader = Reader(steady, sizes["/api/tasks"])
    stalled = {
        name: [Stalled(connection, way) for connection in crowd.connect(2, way.opened(rich))]
        for name, way in STALLING.items()
    }
    one_by_one = [each for several in stalled.values() for each in several]
    until = time.monotonic() + CUT_SECONDS
    while time.monotonic() < until:
        for each in one_by_one:
            if each.ended_after is None:
                each.go_on()
        time.sleep(0.25)

    assert [name for name, several in stalled.items() if None in [each.ended_after for each in several]] == []
    for each in one_by_one:
        answers = re.findall(rb"HTTP/1.1 (\d+)", each.received)
        assert answers == [] or (len(answers) == 1 and answers[0] in each.way.statuses), each.way
    assert all(read_up(connection) < sizes[path] for path, connection in not_reading)
    assert reader.read() > sizes["/api/tasks"]
    idle.send(request("GET /health/live"))
    assert idle.answer().status_code == 200


class Reader:
    """Reads an answer of `size` bytes in the background: within some 8 s, little by little."""

    def __init__(self, connection: Connection, size: int) -> None:
        self._connection, self._step, self._read = connection, size // 40, 0
        self._thread = threading.Thread(target=self._go, daemon=True)
        self._thread.start()

    def _go(self) -> None:
        for _ in range(40):
            self._read += len(self._connection.read(self._step))
            time.sleep(0.2)

    def read(self) -> int:
        """How much there was in the end, the head included."""
        self._thread.join(20)
        self._connection.say_goodbye()
        return self._read + read_up(self._connection)


def read_up(connection: Connection) -> int:
    """How many bytes still come until the service has ended the connection."""
    count = 0
    with contextlib.suppress(ConnectionResetError):
        while data := connection.read(65536):
            count += len(data)
    return count

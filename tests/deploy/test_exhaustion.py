"""Clients that take their time, against nginx and gunicorn as they are shipped: nginx takes them in, others are served.

Directly, each of them would hold a thread of gunicorn's. Who says or reads nothing is cut off in the end, or as soon as
the answer is known; who trickles a body is not, as that costs nobody anything. Nobody who idles is.
"""

import contextlib
import re
import resource
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import orjson
import pytest
from flask import Flask

from tests.conftest import SECRET, User, user_of
from tests.support.live import SERVERS, Service, command_of
from tests.support.proxy import Proxy
from tests.support.raw import Connection, request

pytestmark = pytest.mark.timed

# 64 are four for each of the threads that a service of two workers has by default.
MANY, MORE, CROWD = 64, 256, 1000
SERVED_SECONDS = 6
# nginx's own deadlines, and some time to notice them.
CUT_SECONDS = 20
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
TOKEN = "Authorization: Bearer {token}"


@dataclass(frozen=True)
class Stalling:
    """A way to take one's time: what is sent at once, then what is sent again and again."""

    opening: bytes
    drip: bytes = b""
    statuses: tuple[bytes, ...] = ()
    cut: bool = True

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
    "a trickled body, no token": Stalling(body("Content-Length: 100", b"{"), b" ", cut=False),
    "a trickled body": Stalling(body("Content-Length: 100", b"{", TOKEN), b" ", cut=False),
    "trickled chunks, no token": Stalling(body(CHUNKED, b"1\r\n{\r\n"), b"1\r\n \r\n", cut=False),
    "trickled chunks": Stalling(body(CHUNKED, b"1\r\n{\r\n", TOKEN), b"1\r\n \r\n", cut=False),
    "a trickled chunk size": Stalling(body(CHUNKED, b"", TOKEN), b"0", cut=False),
    "half a file": Stalling(
        body("Content-Length: 1000000", b"[" + b" " * 500_000, TOKEN, path="/api/tasks/import")
    ),
    "a body that is too large, and never comes": Stalling(body("Content-Length: 3000000", b"", TOKEN), b"", (b"413",)),
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


@pytest.fixture(scope="module", params=SERVERS)
def service(request: pytest.FixtureRequest, database_url: str) -> Iterator[Proxy]:
    """The service with the limit on open files that it is given, and afterwards as many for the clients as need be."""
    command = command_of(request.param)
    with Service(database_url, SECRET, command, RATELIMIT_DEFAULT="100000/minute") as behind, Proxy(behind) as running:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 2 * CROWD if hard == resource.RLIM_INFINITY else min(2 * CROWD, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
        yield running
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def crowd(service: Proxy) -> Iterator["Crowd"]:
    made = Crowd(service)
    yield made
    made.disperse()


class Crowd:
    """Many connections, gone with the end of the test."""

    def __init__(self, service: Proxy) -> None:
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


def assert_serves(service: Proxy, user: User) -> None:
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


@pytest.mark.parametrize("count", [MANY, MORE])
@pytest.mark.parametrize("way", STALLING.values(), ids=STALLING)
def test_stalling_clients_keep_nobody_waiting(
    service: Proxy, crowd: Crowd, alice: User, way: Stalling, count: int
) -> None:
    connections = crowd.connect(count, way.opened(alice))
    if way.drip:
        crowd.drip(connections, way.drip)
    # Until all of them are at it.
    time.sleep(0.5)
    assert_serves(service, alice)


def test_idle_connections_keep_nobody_waiting(service: Proxy, crowd: Crowd, alice: User) -> None:
    crowd.connect(CROWD)
    assert_serves(service, alice)


def test_kept_connections_keep_nobody_waiting(service: Proxy, crowd: Crowd, alice: User) -> None:
    connections = crowd.connect(CROWD, request("GET /health/live"))
    assert {connection.answer().status_code for connection in connections} == {200}
    assert_serves(service, alice)


# Chunks that say what the last one says, or of one byte each: a search from each of them would take minutes.
DEAR = {
    "lines like the last chunk": b"f0000\r\n" + b"0\r\n" * 0x50000 + b"\r\n0\r\n\r\n",
    "chunks of one byte": b"1\r\n \r\n" * 150_000 + b"0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", DEAR.values(), ids=DEAR)
def test_chunks_made_to_be_dear_cost_no_more_than_others(service: Proxy, crowd: Crowd, chunks: bytes) -> None:
    [connection] = crowd.connect(1, body(CHUNKED, chunks))
    assert connection.answer().status_code == 401


# The same tasks; the export is written while it is sent.
LARGE = ["/api/tasks", "/api/tasks/export"]


@pytest.fixture(scope="module")
def rich(app: Flask) -> User:
    """Somebody with 8 MB of tasks, more than the buffers of two sockets take (4 MiB and what the client asks for)."""
    user = user_of(app, "rich")
    tasks = [{"title": f"{number}", "description": "𠮷" * 2000} for number in range(1000)]
    file = orjson.dumps(tasks)
    assert user.post("/api/tasks/import", data=file, content_type="application/json").status_code == 200
    return user


@pytest.mark.parametrize("path", LARGE)
def test_slow_readers_keep_nobody_waiting(service: Proxy, crowd: Crowd, rich: User, path: str) -> None:
    crowd.connect(MANY, request(f"GET {path}", f"Authorization: Bearer {rich.token}"), receive_buffer=4096)
    assert_serves(service, rich)


def test_those_who_stall_are_cut_off_and_nobody_else(service: Proxy, crowd: Crowd, rich: User) -> None:
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
        if way.cut
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

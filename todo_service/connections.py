"""One client's connection, as the server sees it: what has come of a request, and what is left to send of an answer.

Nothing here waits for the client, with two exceptions that hold a thread and so have to be let in by the `Lane`: a body
that is too large to be collected first, or comes in chunks, is read while the app asks for it; and an answer that is
streamed waits for a reader who is far behind. What a request is and where it ends is decided by gunicorn's parser
(RFC 9112); here is only counted whether enough has come. When to do what is left to `worker.py`.
"""

import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gunicorn.config import Config
from gunicorn.http.body import ChunkedReader
from gunicorn.http.errors import LimitRequestHeaders, NoMoreData, ParseException
from gunicorn.http.parser import RequestParser

from .lead import lead

# How long a client may take to send a request that it has begun, and to take an answer or each MiB of a streamed one.
REQUEST_SECONDS = 15
# How long it may take to hang up after the last answer; what it still sends is thrown away (RFC 9112, section 9.6).
LINGER_SECONDS = 2
# The head of a request, and a body that is collected before a thread turns to it, have at most so many bytes.
MAX_HEAD = 64 * 1024
MAX_COLLECTED = 1024 * 1024
# So much of a streamed answer is kept for its reader before the next part is made.
MAX_AHEAD = 1024 * 1024
RECEIVED_AT_ONCE = 64 * 1024

HEAD_END = re.compile(rb"\n\r?\n")
CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]+")
# The longest line before a chunk, and trailer, that is collected: each new byte may cost a look at all of it.
MAX_CHUNK_LINE = 8 * 1024


class Lane:
    """The few places for those that hold a thread while they wait for their client, and the queue before them."""

    def __init__(self, places: int, wake: Callable[["Connection"], None]) -> None:
        self._lock = threading.Lock()
        self._free, self._wake = places, wake
        self._queue: deque[Connection] = deque()

    def enter(self, connection: "Connection", queue: bool) -> bool:
        """Take a place. With `queue`, a connection that finds none is woken when one is free."""
        with self._lock:
            if self._free:
                self._free -= 1
                lead.give_up()
                return True
            if queue:
                self._queue.append(connection)
            return False

    def leave(self) -> None:
        with self._lock:
            self._free += 1
        self.call()

    def call(self) -> None:
        """Wake the next in the queue if there is a place, as one that was woken may be given up before it takes it."""
        with self._lock:
            while self._free and self._queue:
                following = self._queue.popleft()
                if not (following.closed or following.closing):
                    self._wake(following)
                    break


class Connection:
    """Whoever does something with it holds `lock`. What the client does next is waited for since `since`, and until
    `until` (times of time.monotonic()), when it is given up.
    """

    def __init__(self, sock: socket.socket, client: Any, server: Any, config: Config, lane: Lane) -> None:
        self.lock = threading.Lock()
        self.sock, self.client, self.server = sock, client, server
        self._idle_seconds = config.keepalive
        self.wait(self._idle_seconds)
        self.descriptor = sock.fileno()
        # A request whose head has come, and the reply to it; and what has come that isn't read yet: its body, or a part
        # of the next head.
        self.request: Any = None
        self.reply: Any = None
        # Whether much has come with it, which the app may have by now.
        self.heavy = False
        self.arrived = bytearray()
        # Answered for the last time; and given up.
        self.closing = self.closed = False
        self._parser = RequestParser(config, self, client)  # type: ignore[arg-type]
        self._lane = lane
        self._searched = 0
        self._reads_until: float | None = None
        self._made: list[bytes] = []
        self._rest = memoryview(b"")

    @property
    def size(self) -> int:
        """How many bytes are kept for the client."""
        return len(self.arrived) + len(self._rest)

    @property
    def unsent(self) -> bool:
        return bool(self._rest or self._made)

    @property
    def in_request(self) -> bool:
        """Whether it's the client who has to go on with a request."""
        return bool(self.request or self.arrived) and not self.closing and not self.unsent

    def has_more(self) -> bool:
        """Whether something has come that no thread has taken yet."""
        try:
            return not self.closing and bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def receive(self) -> bool:
        """Take what has come; False if that is the end."""
        try:
            data = self.sock.recv(RECEIVED_AT_ONCE)
        except BlockingIOError:
            return True
        if not self.closing:
            if not self.in_request:
                self.wait(REQUEST_SECONDS)
            self.arrived += data
        return bool(data)

    def is_ready(self) -> bool:
        """Whether there is enough of a request to answer it. Raises ParseException, NoMoreData for what is none."""
        if self.request is None and not self._read_head():
            return False
        if not isinstance(self.request.body.reader, ChunkedReader):
            return self._is_large() or len(self.arrived) >= self.request.body.reader.length
        return self._has_chunks() or len(self.arrived) > MAX_COLLECTED

    def _has_chunks(self) -> bool:
        """Whether chunks have come up to the last (RFC 9112, section 7.1), or to what is none: the parser says which.

        Goes from one to the next, and never over what it has passed: bodies may be made so that a search takes minutes.
        """
        while (end := self.arrived.find(b"\n", self._searched, self._searched + MAX_CHUNK_LINE)) >= 0:
            size = CHUNK_SIZE.match(self.arrived, self._searched, end)
            if not size:
                return True
            length = int(size[0], 16)
            if length == 0:
                if self.arrived.find(b"\r\n\r\n", end - 1) >= 0:
                    return True
                break
            self._searched = end + 1 + length + 2
        return len(self.arrived) - self._searched > MAX_CHUNK_LINE

    def _read_head(self) -> bool:
        ended = HEAD_END.search(self.arrived, max(0, self._searched - 2))
        self._searched = len(self.arrived)
        if not ended and self._searched <= MAX_HEAD:
            return False
        try:
            self.request = next(self._parser)
        except NoMoreData:
            if not ended:
                raise LimitRequestHeaders("no end") from None
            raise
        self._take_back()
        if not self.arrived and not self._is_large():
            self._invite()
        return True

    def _is_large(self) -> bool:
        reader = self.request.body.reader
        return not isinstance(reader, ChunkedReader) and reader.length > MAX_COLLECTED

    def _take_back(self) -> None:
        """What the parser has read beyond what it needed."""
        if beyond := self._parser.unreader.take_buffered():
            self.arrived[:0] = beyond
        self._searched = 0

    def _invite(self) -> None:
        """Let a client go on that waits to be told so (RFC 9110, section 10.1.1)."""
        if self.request._expected_100_continue:
            self.request._expected_100_continue = False
            self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def begin(self) -> bool:
        """Whether the request can be answered now; if not, the connection is woken when it can."""
        reader = self.request.body.reader
        if isinstance(reader, ChunkedReader) or reader.length > len(self.arrived):
            if not self._lane.enter(self, queue=True):
                return False
            self._reads_until = time.monotonic() + REQUEST_SECONDS
        return True

    def end(self, keep: bool) -> None:
        """The request is answered. What nobody has read of its body is passed over if it is there; else close."""
        if self._reads_until is not None:
            self._reads_until = None
            self.sock.setblocking(False)
            self._lane.leave()
        self.closing = not (keep and self._pass_over())
        self.request = None
        self._take_back()

    def _pass_over(self) -> bool:
        try:
            self._parser.finish_body()
        except (ParseException, OSError):
            return False
        reader = self.request.body.reader
        over = reader.parser is None if isinstance(reader, ChunkedReader) else reader.length == 0
        return over and not self.request.body.failed

    def flush(self) -> bool:
        """Send as much as the client takes now; whether that is all."""
        if self._made:
            self._rest = memoryview(b"".join([self._rest, *self._made]))
            self._made.clear()
            self.wait(REQUEST_SECONDS)
        try:
            while self._rest:
                self._rest = self._rest[self.sock.send(self._rest) :]
        except BlockingIOError:
            return False
        return True

    def rest(self) -> None:
        """All is sent. Now the next request may come or, after the last answer, the client hang up."""
        if self.closing:
            self.wait(LINGER_SECONDS)
            self.sock.shutdown(socket.SHUT_WR)
        else:
            self.wait(REQUEST_SECONDS if self.arrived else self._idle_seconds)

    def wait(self, seconds: float) -> None:
        self.since = time.monotonic()
        self.until = self.since + seconds

    def close(self) -> None:
        """Give the client up, and let go of all that is kept at once: the parser and the lane may hold this longer."""
        self.closed = True
        self.sock.close()
        self.arrived, self._rest = bytearray(), memoryview(b"")
        self._made.clear()

    # What gunicorn's parser and response take for the socket.

    def recv(self, size: int) -> bytes:
        """No more than `size`: for each chunk of a body the parser copies what it has got beyond."""
        if not self.arrived and self._reads_until is not None:
            self._invite()
            self.sock.settimeout(max(0.001, self._reads_until - time.monotonic()))
            return self.sock.recv(min(size, RECEIVED_AT_ONCE))
        if not self.arrived:
            # Not the end, for which the parser would take an empty answer: the rest of a body may be on its way.
            raise NoMoreData
        data = bytes(self.arrived[:size])
        del self.arrived[:size]
        return data

    def send(self, _continue: bytes) -> None:
        """`100 Continue`, before the app is asked: too early for a body that it may not want."""

    def sendall(self, data: bytes) -> None:
        """Send it later, in one go; raises OSError where that would be too much and the client doesn't take it."""
        if sum(map(len, self._made)) > MAX_AHEAD and not self.flush():
            self._wait_for_reader()
        self._made.append(data)

    def _wait_for_reader(self) -> None:
        if not self._lane.enter(self, queue=False):
            raise TimeoutError("too many slow readers")
        try:
            self.sock.settimeout(REQUEST_SECONDS)
            self.sock.sendall(self._rest)
            self._rest = memoryview(b"")
        finally:
            self.sock.setblocking(False)
            self._lane.leave()

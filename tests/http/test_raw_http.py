"""HTTP on the wire, against gunicorn as it is shipped: messages that two servers could read differently are refused.

A refused message gets one answer, a page of gunicorn's own where the app hears nothing of it, and the connection is
closed: what follows it on the socket may be the second half of a smuggled request, and is neither answered nor carried
out. What of this needs no socket (other methods, hosts, content types, a request's line in the log) is tested with the
app; what nginx makes of the same messages in test_proxy.py.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask

from tests.conftest import SECRET, User, assert_problem, token, user_of
from tests.support.live import Service
from tests.support.raw import Answer, Connection, chunked, request
from todo_service.http.parsing import MAX_UNREAD

TASK = b'{"title": "one"}'
JSON = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
LIMIT, FILE_LIMIT = 2**20, 2**24


@pytest.fixture(scope="module")
def service(database_url: str) -> Iterator[Service]:
    """Any number of requests, and no proxy that is believed."""
    with Service(database_url, SECRET, RATELIMIT_DEFAULT="100000/minute", FORWARDED_ALLOW_IPS="192.0.2.1") as running:
        yield running


@pytest.fixture
def connect(service: Service) -> Iterator[Callable[[], Connection]]:
    """Makes connections to the service."""
    made: list[Connection] = []

    def make() -> Connection:
        made.append(Connection(service.port))
        return made[-1]

    yield make
    for connection in made:
        connection.close()


@pytest.fixture
def connection(connect: Callable[[], Connection]) -> Connection:
    return connect()


def by(user: User) -> str:
    return f"Authorization: Bearer {user.token}"


def creation(user: User, *lines: str, body: bytes = b"", path: str = "/api/tasks") -> bytes:
    """A request that creates a task, but for the body's framing."""
    return request(f"POST {path}", by(user), JSON, *lines, body=body)


def smuggled(user: User) -> bytes:
    """A whole request, to be hidden behind another one."""
    body = b'{"title": "smuggled"}'
    return creation(user, f"Content-Length: {len(body)}", body=body)


def assert_refused(connection: Connection, user: User, message: bytes, *statuses: int) -> None:
    """`message` gets one answer, by default a 400; what follows it gets none; nothing is done."""
    connection.send(message + smuggled(user))
    answer = connection.answer()
    rest = connection.rest()
    assert user.titles() == []
    assert rest == b""
    assert answer.status_code in (statuses or (400,))
    assert_plain(answer)


def assert_plain(answer: Answer) -> None:
    """Nothing of the inside is in it."""
    assert not re.search(rb"gunicorn|Traceback|\.py", answer.get_data())


def assert_plain_problem(answer: Answer, status: int) -> None:
    """`answer` is a problem as the app's are, and nothing of the inside is in it."""
    assert_problem(answer, status)
    assert not re.search(r"Error\b|Invalid[A-Z]|<html", answer.text)
    assert_plain(answer)


# Where a message ends must not be in doubt

LENGTHS = [
    ("Content-Length: 16\r\nContent-Length: 16", "RFC 9112, 6.3: twice"),
    ("Content-Length: 16\r\nContent-Length: 0", "RFC 9112, 6.3: two values"),
    ("Content-Length: 16, 16", "RFC 9112, 6.3: a list of the same"),
    ("Content-Length: 16, 0", "RFC 9112, 6.3: a list of others"),
    ("Content-Length: +16", "RFC 9110, 8.6: signed"),
    ("Content-Length: -16", "RFC 9110, 8.6: negative"),
    ("Content-Length: 0x10", "RFC 9110, 8.6: hexadecimal"),
    ("Content-Length: 1 6", "RFC 9110, 8.6: a space in it"),
    ("Content-Length: 1_6", "RFC 9110, 8.6: as Python writes numbers"),
    ("Content-Length: 16.0", "RFC 9110, 8.6: a fraction"),
    ("Content-Length: \xb2", "RFC 9110, 8.6: a digit, but none of ASCII"),
    ("Content-Length:", "RFC 9110, 8.6: empty"),
    (f"Content-Length: {'9' * 5000}", "RFC 9110, 8.6: more digits than a number may have"),
    ("Content-Length : 16", "RFC 9112, 5.1: a space before the colon"),
    ("Content-Length\t: 16", "RFC 9112, 5.1: a tab before the colon"),
    ("Content-Length:\r\n 16", "RFC 9112, 5.2: folded"),
]
CODINGS = [
    (f"Content-Length: 16\r\n{CHUNKED}", "RFC 9112, 6.1: a length as well"),
    (f"{CHUNKED}\r\nContent-Length: 16", "RFC 9112, 6.1: and a length"),
    ("Transfer-Encoding: xchunked", "RFC 9112, 6.3: not chunked"),
    ("Transfer-Encoding: identity", "RFC 9112, 6.3: the body as it is"),
    ("Transfer-Encoding: gzip", "RFC 9112, 6.3: only compressed"),
    ("Transfer-Encoding: chunked, identity", "RFC 9112, 6.3: chunked is not the last"),
    ("Transfer-Encoding: chunked, gzip", "RFC 9112, 6.3: chunked, then compressed"),
    ("Transfer-Encoding:", "RFC 9112, 6.3: none"),
    ("Transfer-Encoding: chunked;q=1", "RFC 9112, 7: a parameter"),
    ('Transfer-Encoding: "chunked"', "RFC 9112, 7: in quotes"),
    ("Transfer-Encoding: \x0bchunked", "RFC 9110, 5.5: behind a control character"),
    ("Transfer-Encoding: chunked, chunked", "RFC 9112, 6.1: chunked twice"),
    (f"{CHUNKED}\r\n{CHUNKED}", "RFC 9112, 6.1: chunked twice, in two lines"),
    (f"{CHUNKED}\r\nTransfer-Encoding: x", "RFC 9112, 6.1: and another one"),
    ("Transfer-Encoding: gzip, chunked", "RFC 9112, 6.1: compressed, which nobody undoes here"),
    (f"Transfer-Encoding: gzip\r\n{CHUNKED}", "RFC 9112, 6.1: compressed, in a line of its own"),
    ("Transfer-Encoding: xchunked, chunked", "RFC 9112, 6.1: one that nobody knows, then chunked"),
    ("Transfer-Encoding : chunked", "RFC 9112, 5.1: a space before the colon"),
    ("Transfer-Encoding:\r\n chunked", "RFC 9112, 5.2: folded"),
]
LINES = [
    ("X-A: b\r\n c", "RFC 9112, 5.2: folded"),
    (" X-A: b", "RFC 9112, 2.2: a space before the first field"),
    ("X-A: b\nContent-Length: 0", "RFC 9112, 2.2: bare LF"),
    ("X-A: b\rContent-Length: 0", "RFC 9112, 2.2: bare CR"),
    ("X-A: a\0b", "RFC 9110, 5.5: NUL in a value"),
    ("X-Request-ID: \x1b[31m", "RFC 9110, 5.5: ESC in a value"),
    ("X-A: a\x7fb", "RFC 9110, 5.5: DEL in a value"),
    ("X-\0A: b", "RFC 9110, 5.1: NUL in a name"),
    ("X-\xe9: b", "RFC 9110, 5.1: a letter beyond ASCII in a name"),
    ("X-A", "RFC 9112, 5: no colon"),
    (": b", "RFC 9112, 5: no name"),
    ("Host: 127.0.0.1", "RFC 9112, 3.2: two Hosts"),
    ("Host: evil.example", "RFC 9112, 3.2: two different Hosts"),
    (JSON, "RFC 9110, 5.3: two content types"),
]


# gunicorn takes these, and leaves it to the proxy to refuse them: but where they end is in no doubt.
TAKEN = {
    "RFC 9112, 6.1: compressed, which nobody undoes here",
    "RFC 9112, 6.1: compressed, in a line of its own",
    "RFC 9112, 3.2: no Host",
    "RFC 9110, 4.2.1: an empty Host",
    "RFC 9112, 3.2: a Host that is none",
    "RFC 9112, 3.2: a Host with a user",
    "RFC 9112, 3.2: a list of Hosts",
    "RFC 9112, 3.2.2: another host",
    "RFC 9112, 3.2.2: a user in the target",
    "RFC 9112, 3.2.2: a host in the target only",
    "RFC 9110, 7.4: a scheme that is not ours",
}


def table(rows: list[tuple[Any, str]]) -> list[Any]:
    return [pytest.param(value, id=source) for value, source in rows if source not in TAKEN]


@pytest.mark.parametrize("lines", table(LENGTHS))
def test_doubtful_length(connection: Connection, alice: User, lines: str) -> None:
    assert_refused(connection, alice, creation(alice, lines, body=TASK))


@pytest.mark.parametrize("lines", table(CODINGS))
def test_doubtful_transfer_coding(connection: Connection, alice: User, lines: str) -> None:
    """RFC 9112, 6.1: 501 for one that is not known."""
    assert_refused(connection, alice, creation(alice, lines, body=chunked(TASK)), 400, 501)


@pytest.mark.parametrize("lines", table(LINES))
def test_doubtful_lines(connection: Connection, alice: User, lines: str) -> None:
    assert_refused(connection, alice, creation(alice, lines, f"Content-Length: {len(TASK)}", body=TASK))


HOST = b"Host: 127.0.0.1\r\n"
HEADS = [
    (b"GET /health/live HTTP/1.1\n" + HOST + b"\r\n", "RFC 9112, 2.2: bare LF after the request line"),
    (b"GET /health/live HTTP/1.1\r\n" + HOST + b"\n", "RFC 9112, 2.2: bare LF at the end"),
    (b"GET /health/live HTTP/1.1\n" + HOST.replace(b"\r", b"") + b"\n", "RFC 9112, 2.2: nothing but bare LF"),
    (b"GET /health/live HTTP/1.1\r\n\r\n", "RFC 9112, 3.2: no Host"),
    (b"GET /health/live HTTP/1.1\r\nHost:\r\n\r\n", "RFC 9110, 4.2.1: an empty Host"),
    (b"GET /health/live HTTP/1.1\r\nHost: a/b\r\n\r\n", "RFC 9112, 3.2: a Host that is none"),
    (b"GET /health/live HTTP/1.1\r\nHost: a@b\r\n\r\n", "RFC 9112, 3.2: a Host with a user"),
    (b"GET /health/live HTTP/1.1\r\nHost: a, b\r\n\r\n", "RFC 9112, 3.2: a list of Hosts"),
    (b"GET http://evil.example/health/live HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 9112, 3.2.2: another host"),
    (b"GET http://127.0.0.1@evil/health/live HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 9112, 3.2.2: a user in the target"),
    (b"GET http://127.0.0.1/health/live HTTP/1.0\r\n\r\n", "RFC 9112, 3.2.2: a host in the target only"),
    (b"GET ftp://127.0.0.1/health/live HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 9110, 7.4: a scheme that is not ours"),
    (b"GET 127.0.0.1:80 HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 9112, 3.2.3: a target that is for CONNECT"),
    (b"GET * HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 9112, 3.2.4: a target that is for OPTIONS"),
    (b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 3986, 2: bytes beyond ASCII in the target"),
    (b"GET /a\0b HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 3986, 2: NUL in the target"),
    (b"GET /\x1b[31m HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 3986, 2: ESC in the target"),
    (b"GET  /health/live HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 9112, 3: two spaces"),
    (b"GET\t/health/live\tHTTP/1.1\r\n" + HOST + b"\r\n", "RFC 9112, 3: tabs"),
    (b"G(T /health/live HTTP/1.1\r\n" + HOST + b"\r\n", "RFC 9110, 9.1: a method that is no token"),
    (b"GET /health/live\r\n" + HOST + b"\r\n", "RFC 9112, 2.3: no version"),
    (b"GET /health/live HTTP/1.10\r\n" + HOST + b"\r\n", "RFC 9112, 2.3: two digits"),
    (b"GET /health/live HTTP/2.0\r\n" + HOST + b"\r\n", "RFC 9112, 2.3: another major version"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "RFC 9113, 3.4: HTTP/2, unasked"),
    (b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\nGET /health/live HTTP/1.1\r\n" + HOST + b"\r\n", "PROXY protocol"),
    (b"POST /api/tasks HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", "RFC 9112, 6.1: in HTTP/1.0"),
]  # fmt: skip


@pytest.mark.parametrize("head", table(HEADS))
def test_doubtful_head(connection: Connection, alice: User, head: bytes) -> None:
    assert_refused(connection, alice, head)


@pytest.mark.parametrize("name", sorted(TAKEN))
def test_what_is_taken_is_read_once(connection: Connection, alice: User, name: str) -> None:
    """It gets its answer; what follows it gets its own, unless the connection ends before that."""
    bodies = {source: creation(alice, lines, body=chunked(TASK)) for lines, source in CODINGS}
    message = (bodies | {source: head for head, source in HEADS})[name]
    connection.send(message + smuggled(alice))
    connection.say_goodbye()
    first, *second = re.findall(rb"HTTP/1\.[01] (\d+) ", connection.rest())
    assert first in (b"200", b"201")
    assert second in ([], [b"201"])
    assert sorted(alice.titles()) == ["one"] * (first == b"201") + ["smuggled"] * len(second)


TOO_LONG = [
    (request("GET /" + "a" * 8190), 414, "request line"),
    (request("GET /health/live", "X-A: " + "a" * 8190), 431, "field"),
    (request("GET /health/live", *["A: b"] * 10_001), 431, "number of fields"),
    (b"GET /" + b"a" * 2_000_000, 414, "request line without an end"),
    (request("GET /health/live")[:-2] + b"X-A: " + b"a" * 2_000_000, 431, "field without an end"),
]


@pytest.mark.parametrize(("head", "status"), [pytest.param(*row[:2], id=row[2]) for row in TOO_LONG])
def test_too_long(connection: Connection, alice: User, head: bytes, status: int) -> None:
    """RFC 9110, 15.5.15; RFC 6585, 5"""
    assert_refused(connection, alice, head, status)


def test_another_expectation(connection: Connection, alice: User) -> None:
    """RFC 9110, 10.1.1"""
    assert_refused(connection, alice, request("GET /health/live", "Expect: the unexpected"), 417)


def test_what_looks_like_a_request_in_a_body_that_nobody_reads(connection: Connection, alice: User) -> None:
    """RFC 9112, 9.3"""
    hidden = smuggled(alice)
    length = LIMIT + 512
    head = request("POST /api/tasks", JSON, f"Content-Length: {length}")
    connection.send(head + b" " * (length - len(hidden)))
    connection.send(hidden + request("GET /health/live", "Connection: close"))
    assert connection.answer().status_code == 401
    assert connection.answer().json == {"status": "ok"}
    assert connection.rest() == b""
    assert alice.titles() == []


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("over", [1, 2**16, 2**20 - 2**16])
def test_body_over_the_limit_loses_no_request(connect: Callable[[], Connection], framing: str, over: int) -> None:
    """RFC 9112, 9.6: what follows it on the connection is answered, or the client knows that it won't be."""
    user = User("", None, token("somebody"))  # type: ignore[arg-type]
    whole = padded(TASK, LIMIT + over)
    lines, body = (
        (f"Content-Length: {LIMIT + over}", b"".join(whole)) if framing == "length" else (CHUNKED, chunked(*whole))
    )
    connection = connect()
    connection.send(creation(user, lines, body=body))
    answer = connection.answer()
    assert_plain_problem(answer, 413)
    if answer.headers["Connection"] == "keep-alive":
        connection.send(request("GET /health/live", "Connection: close"))
        assert connection.answer().json == {"status": "ok"}
    assert connection.rest() == b""


# Bodies are whole, or refused

CHUNKS = [
    (b"xyz\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1: no size"),
    (b"\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1: an empty size"),
    (b"-10\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1: a negative size"),
    (b"+10\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1: a signed size"),
    (b"0x10\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1: a prefix"),
    (b"1_0\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1: as Python writes numbers"),
    (b"10 \r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1.1: a space and no extension"),
    (b"10\n%b\r\n0\r\n\r\n", "RFC 9112, 2.2: bare LF after the size"),
    (b"10\r\n%b\n0\r\n\r\n", "RFC 9112, 2.2: bare LF after the data"),
    (b"10\r\n%b0\r\n\r\n", "RFC 9112, 7.1: nothing after the data"),
    (b"f\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1: more data than the size says"),
    (b"10;a\rb\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1.1: bare CR in an extension"),
    (b"10;\0\r\n%b\r\n0\r\n\r\n", "RFC 9112, 7.1.1: NUL in an extension"),
    (b"10;" + b"a" * (LIMIT + 2**17), "RFC 9112, 7.1.1: an extension without an end"),
    (b"10\r\n%b\r\n0\r\nContent-Length: 5\r\n\r\n", "RFC 9110, 6.5.1: a length in the trailer"),
    (b"10\r\n%b\r\n0\r\nAuthorization: x\r\n\r\n", "RFC 9110, 6.5.1: a token in the trailer"),
    (b"10\r\n%b\r\n0\r\nx\r\n\r\n", "RFC 9112, 7.1.2: a trailer without a colon"),
]


@pytest.mark.parametrize("body", table(CHUNKS))
def test_broken_chunks(connection: Connection, alice: User, body: bytes) -> None:
    """Something that looks like the end follows, for a server that waits for it before it looks at the chunks."""
    broken = body.replace(b"%b", TASK) + b"\r\n0\r\n\r\n"
    assert_refused(connection, alice, creation(alice, CHUNKED, body=broken))


@pytest.mark.parametrize("size", [b"10000000000000010", b"f" * 4000])
def test_chunk_size_beyond_every_integer(connection: Connection, alice: User, size: bytes) -> None:
    """RFC 9112, 7.1: it doesn't wrap around, so there is more of that chunk than a body may have."""
    body = size + b"\r\n" + TASK + b"\r\n0\r\n\r\n" + smuggled(alice)
    assert_refused(connection, alice, creation(alice, CHUNKED, body=body.ljust(LIMIT + 2**17)), 413)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_broken_chunks_that_nobody_reads(connection: Connection, alice: User, method: str) -> None:
    """RFC 9112, 9.3: what follows them can't be told apart from them, even where the answer needs no body."""
    connection.send(request(f"{method} /api/tasks", CHUNKED, body=b"xyz\r\n0\r\n\r\n") + smuggled(alice))
    assert connection.answer().status_code in (400, 401)
    assert connection.rest() == b""
    assert alice.titles() == []


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(("Content-Length: 100", TASK), id="RFC 9112, 8: shorter than its length"),
        pytest.param((CHUNKED, b"10\r\n" + TASK + b"\r\n"), id="RFC 9112, 8: without the last chunk"),
        pytest.param((CHUNKED, b"20\r\n" + TASK), id="RFC 9112, 8: without the end of a chunk"),
    ],
)
def test_body_that_ends_early(connection: Connection, alice: User, rest: tuple[str, bytes]) -> None:
    """What has come would be a task all the same. Its client may be told so, or not."""
    connection.send(creation(alice, rest[0], body=rest[1]))
    connection.say_goodbye()
    assert re.fullmatch(rb"(HTTP/1.1 400 .*)?", connection.rest(), re.DOTALL)
    assert alice.titles() == []


def padded(text: bytes, size: int) -> list[bytes]:
    """`text` and spaces, `size` bytes together, in pieces: JSON that is valid wherever it is cut off."""
    whole = text.ljust(size)
    return [whole[start : start + 2**16] for start in range(0, size, 2**16)]


BODIES = [("/api/tasks", TASK, LIMIT, 201), ("/api/tasks/import", b"[%b]" % TASK, FILE_LIMIT, 200)]


@pytest.mark.parametrize(("path", "text", "limit", "status"), BODIES)
def test_chunked_body(
    connect: Callable[[], Connection], alice: User, path: str, text: bytes, limit: int, status: int
) -> None:
    head = creation(alice, CHUNKED, path=path)
    over, within = connect(), connect()
    over.send(head + chunked(*padded(text, limit + 1)))
    over.say_goodbye()
    assert_plain_problem(over.answer(), 413)
    assert over.rest() == b""
    assert alice.titles() == []
    within.send(head + chunked(*padded(text, limit)))
    assert within.answer().status_code == status
    assert alice.titles() == ["one"]


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/import"])
def test_announced_body_over_every_limit_is_not_waited_for(connection: Connection, alice: User, path: str) -> None:
    """RFC 9110, 15.5.14"""
    connection.send(creation(alice, f"Content-Length: {MAX_UNREAD + 1}", path=path))
    connection.socket.settimeout(3)
    assert_plain_problem(connection.answer(), 413)
    assert connection.rest() == b""


def test_continue(connection: Connection, alice: User) -> None:
    """RFC 9110, 10.1.1: the body comes after it was asked for, and is answered once."""
    connection.send(creation(alice, f"Content-Length: {len(TASK)}", "Expect: 100-continue"))
    assert connection.answer().status_code == 100
    connection.send(TASK + request("GET /health/live"))
    assert connection.answer().status_code == 201
    assert connection.answer().json == {"status": "ok"}


# What is in order works

GOOD_CHUNKS = [
    (b"10\r\n%b\r\n0\r\n\r\n", "one chunk"),
    (b'0010;a="b c" ; d\r\n%b\r\n000\r\n\r\n', "RFC 9112, 7.1.1: extensions"),
    (b"10\r\n%b\r\n0\r\nX-Sum: 5\r\n\r\n", "RFC 9112, 7.1.2: a trailer"),
]


@pytest.mark.parametrize("body", table(GOOD_CHUNKS))
def test_chunks_in_order(connection: Connection, alice: User, body: bytes) -> None:
    """The next request is answered, if the connection goes on."""
    connection.send(creation(alice, CHUNKED, body=body.replace(b"%b", TASK)) + request("GET /health/live"))
    answer = connection.answer()
    assert answer.status_code == 201
    if answer.headers["Connection"] == "keep-alive":
        assert connection.answer().json == {"status": "ok"}
    assert alice.titles() == ["one"]


def test_pipelined_requests_are_answered_in_order(connection: Connection, alice: User) -> None:
    """RFC 9112, 9.3.2"""
    create = creation(alice, f"Content-Length: {len(TASK)}", body=TASK)
    look, health = request("GET /api/tasks?count=true", by(alice)), request("GET /health/live")
    connection.send(create + look + create + health + look)
    answers = [connection.answer() for _ in range(5)]
    assert [answer.status_code for answer in answers] == [201, 200, 201, 200, 200]
    assert [answers[place].headers["X-Total-Count"] for place in (1, 4)] == ["1", "2"]
    assert answers[3].json == {"status": "ok"}


def test_head_is_get_without_the_body(connection: Connection, alice: User) -> None:
    """RFC 9110, 9.3.2: the same fields, so that the next answer begins where the body would."""
    alice.create()
    get, head = (request(f"{method} /api/tasks", by(alice)) for method in ("GET", "HEAD"))
    connection.send(get + head + get)
    answers = [connection.answer(method) for method in ("GET", "HEAD", "GET")]
    changing = {"date", "x-request-id", "ratelimit"}
    fields = [{name: value for name, value in answer.headers if name.lower() not in changing} for answer in answers]
    assert fields[0] == fields[1] == fields[2]
    assert answers[1].content_length == len(answers[0].get_data()) > 0
    assert answers[1].get_data() == b""


def test_trace_shows_nothing(connection: Connection, alice: User) -> None:
    """RFC 9110, 9.3.8: a TRACE that is answered gives away what proxies have added."""
    connection.send(request("TRACE /api/tasks", by(alice)))
    answer = connection.answer()
    assert_plain_problem(answer, 405)
    assert set(answer.allow) == {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}
    assert alice.token not in answer.text


def test_options_without_an_origin(connection: Connection) -> None:
    """RFC 9110, 9.3.7"""
    connection.send(request("OPTIONS /api/tasks") + request("GET /health/live"))
    answer = connection.answer("OPTIONS")
    assert answer.status_code == 200
    assert set(answer.allow) == {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}
    assert answer.get_data() == b""
    assert connection.answer().json == {"status": "ok"}


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        pytest.param(b"GET /health/live HTTP/1.0\r\n\r\n", False, id="RFC 9112, 9.3: HTTP/1.0 closes"),
        pytest.param(b"GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True, id="unless asked not to"),
        pytest.param(request("GET /health/live"), True, id="RFC 9112, 9.3: HTTP/1.1 keeps the connection"),
        pytest.param(request("GET /health/live", "Connection: close"), False, id="RFC 9112, 9.6: unless asked not to"),
        pytest.param(request("GET /health/live", "Connection: keep-alive, close"), False, id="RFC 9110, 7.6.1: a list"),
        pytest.param(
            request("GET /health/live", "Connection: keep-alive\r\nConnection: Close"), False,
            id="RFC 9110, 5.3: a list in two lines",
        ),
        pytest.param(request("GET http://127.0.0.1/health/live"), True, id="RFC 9112, 3.2.2: a proxy's target"),
        pytest.param(b"\r\n" + request("GET /health/live"), True, id="RFC 9112, 2.2: an empty line before"),
        pytest.param(
            request("GET /health/live", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"),
            True,
            id="RFC 9110, 7.8: an upgrade is declined",
        ),
    ],
)  # fmt: skip
def test_connection_is_kept_or_closed(connection: Connection, head: bytes, kept: bool) -> None:
    connection.send(head)
    answer = connection.answer()
    assert answer.json == {"status": "ok"}
    assert answer.headers["Connection"] == ("keep-alive" if kept else "close")
    if kept:
        connection.send(request("GET /health/live", "Connection: close"))
        assert connection.answer().json == {"status": "ok"}
    assert connection.rest() == b""


def test_client_that_has_said_all_is_answered(connection: Connection) -> None:
    """RFC 9112, 9.6: one half of the connection is closed, and not the one for the answers."""
    connection.send(request("GET /health/live") * 2)
    connection.say_goodbye()
    assert [connection.answer().json for _ in range(2)] == [{"status": "ok"}] * 2
    assert connection.rest() == b""


@pytest.mark.parametrize("name", ["日本", "🥛", "ä", "a?b#c", "%41", "a b", '"a"'])
def test_any_user_gets_an_answer(connection: Connection, app: Flask, name: str) -> None:
    """RFC 9110, 5.5: what a client named goes into no field as it is; what an answer names is there."""
    user = user_of(app, name)
    body = b'{"title": "x"}'
    path = f"/api/{quote(user.id, safe='')}/tasks"
    connection.send(creation(user, f"Content-Length: {len(body)}", body=body, path=path))
    created = connection.answer()
    assert created.status_code == 201
    connection.send(request(f"GET {created.headers['Location']}", by(user)))
    assert connection.answer().json == created.json


# Whom to believe, and what to write down


def test_nobody_invents_a_proxy(service: Service, connection: Connection, alice: User) -> None:
    """Neither in links nor in the log nor for the rate limit."""
    alice.create("one")
    alice.create("two")
    invented = ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: on", "X-Forwarded-Host: evil.example",
                "X-Forwarded-Port: 444", "X-Forwarded-Prefix: /evil", "Forwarded: for=203.0.113.7;host=evil.example",
                "X-Real-IP: 203.0.113.7", "SCRIPT_NAME: /evil", "PATH_INFO: /evil"]  # fmt: skip
    connection.send(request("GET /api/tasks?limit=1", by(alice), *invented, host="127.0.0.1:8000"))
    assert connection.answer().headers["Link"].startswith("<http://127.0.0.1:8000/api/tasks?limit=1&")
    # On one connection, hence of one process, which counts for itself.
    callers = [["X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 203.0.113.8"], ["X-Forwarded-For: 203.0.113.9"], []]
    for lines in callers:
        connection.send(request("GET /api/tasks", *lines))
    remaining = [int(re.findall(r"r=(\d+)", connection.answer().headers["RateLimit"])[0]) for _ in callers]
    assert remaining == [remaining[0], remaining[0] - 1, remaining[0] - 2]
    assert "evil" not in service.log


def test_a_proxy_names_the_protocol_and_no_more(database_url: str, alice: User) -> None:
    """A client's own SCRIPT_NAME, passed on by a proxy that lets underscores through, moves no address."""
    alice.create("one")
    alice.create("two")
    with Service(database_url, SECRET) as behind, Connection(behind.port) as proxy:
        lines = ["X-Forwarded-Proto: https", "X-Forwarded-Host: evil.example"]
        proxy.send(request("GET /api/tasks?limit=1", by(alice), *lines, host="todo.example"))
        assert proxy.answer().headers["Link"].startswith("<https://todo.example/api/tasks?limit=1&")
        proxy.send(request("GET /api/tasks", by(alice), "SCRIPT_NAME: /api", "PATH_INFO: /api/nothing"))
        assert proxy.answer().status_code == 200


@pytest.mark.parametrize(
    "message",
    [
        request("GET /%0d%0aforged%1b[31m%c2%85%e2%80%a8line"),
        request("GET /a", "X-Request-ID: a\x85forged"),
        request("GET /\x1b[31mforged"),
        request("GET /a\rforged"),
        request("G\x1bT /forged"),
        request("GET /a", "X\x1b[31m-forged: b"),
        request("GET /a", "forged\x85"),
        request("GET /a", "Transfer-Encoding: \xa0forged\x85"),
        request("GET /a", "Expect: \xa0forged\x85"),
        request("POST /api/tasks", CHUNKED, body=b"\x1b[31mforged\x85\r\n0\r\n\r\n"),
        creation(User("", None, ""), CHUNKED, body=b"\x1b[31mforged\x85\r\n0\r\n\r\n"),  # type: ignore[arg-type]
    ],
)
def test_nobody_forges_a_line_of_the_log(service: Service, connection: Connection, message: bytes) -> None:
    """OWASP ASVS 5.0, 16.4.1: the server's own lines are no way in either."""
    before = len(service.log)
    connection.send(message)
    connection.say_goodbye()
    assert connection.answer().status_code >= 400
    connection.rest()
    written = service.log[before:]
    assert written.rstrip("\n").replace("\n", "").isprintable()
    began = re.compile(r"\[?20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d\S* ")
    assert all(began.match(line) for line in written.splitlines())


def test_nothing_here_was_a_bug(service: Service, connection: Connection) -> None:
    """Bad messages are the client's fault: they leave no stack traces in the log, and no worker has died of them."""
    connection.send(request("GET /health/live"))
    assert connection.answer().status_code == 200
    assert "Traceback" not in service.log
    assert service.log.count("Booting worker") == 2

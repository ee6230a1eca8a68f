"""The service behind nginx, as deploy/nginx.conf has it: what two servers in a row could get wrong; nginx's own part.

Clients that take their time are in test_exhaustion.py, processes that end in test_processes.py.
"""

import gzip
import json
import re
import secrets
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest

from tests.conftest import ORIGIN, SECRET, User, assert_problem, wait_for
from tests.http.test_raw_http import (
    CHUNKED,
    CHUNKS,
    CODINGS,
    HEADS,
    LENGTHS,
    LINES,
    TASK,
    TOO_LONG,
    assert_plain,
    assert_plain_problem,
    by,
    connect,
    connection,
    creation,
    # What holds directly holds through nginx: these are run here too, on connections to it.
    test_body_over_the_limit_loses_no_request,
    test_chunked_body,
    test_chunks_in_order,
    test_client_that_has_said_all_is_answered,
    test_connection_is_kept_or_closed,
    test_continue,
    test_head_is_get_without_the_body,
    test_options_without_an_origin,
    test_pipelined_requests_are_answered_in_order,
)
from tests.support.live import SERVERS, Service, command_of
from tests.support.live import Connection as Client
from tests.support.proxy import Proxy
from tests.support.raw import Answer, Connection, chunked, request

pytestmark = pytest.mark.timed

__all__ = [
    "connect",
    "connection",
    "test_body_over_the_limit_loses_no_request",
    "test_chunked_body",
    "test_chunks_in_order",
    "test_client_that_has_said_all_is_answered",
    "test_connection_is_kept_or_closed",
    "test_continue",
    "test_head_is_get_without_the_body",
    "test_options_without_an_origin",
    "test_pipelined_requests_are_answered_in_order",
]


@dataclass
class Both:
    """The service, and nginx in front of it."""

    behind: Service
    proxy: Proxy

    @property
    def port(self) -> int:
        return self.proxy.port

    @property
    def log(self) -> str:
        return self.behind.log + self.proxy.log


@pytest.fixture(scope="module", params=SERVERS)
def service(request: pytest.FixtureRequest, database_url: str) -> Iterator[Both]:
    """Any number of requests, but for what nginx holds back."""
    metrics = secrets.token_hex(16)
    with (
        Service(
            *(database_url, SECRET, command_of(request.param)),
            RATELIMIT_DEFAULT="100000/minute",
            CORS_ORIGINS=ORIGIN,
            METRICS_TOKEN=metrics,
            # It counts for itself.
            WEB_CONCURRENCY="1",
        ) as behind,
        Proxy(behind) as proxy,
    ):
        yield Both(behind, proxy)


# Where a message ends must not be in doubt

# nginx reads these as it may (RFC 9112, sections 2.2 and 3.2.2), and the service gets what nginx has read, in a form
# that leaves no doubt. By the row's id: the statuses of the answers to it, and to what follows it on the connection.
READ = [200, 201]
TAKEN = {
    "RFC 9110, 5.1: a letter beyond ASCII in a name": [201, 201],
    "RFC 9112, 5: no colon": [201, 201],
    "RFC 9112, 2.2: bare LF after the request line": READ,
    "RFC 9112, 2.2: bare LF at the end": READ,
    "RFC 9112, 2.2: nothing but bare LF": READ,
    "RFC 9112, 3.2.2: another host": READ,
    "RFC 9110, 7.4: a scheme that is not ours": READ,
    "RFC 9112, 3: two spaces": READ,
    "RFC 9112, 2.3: two digits": READ,
    "RFC 9112, 3.2.2: a host in the target only": [200],
    "RFC 9112, 3.2: a Host with a user": READ,
    "RFC 9110, 5.5: ESC in a value": [201, 201],
    # The server refuses these, in its own words; nginx knows where they end.
    "RFC 9110, 5.5: DEL in a value": [400, 201],
    "RFC 9110, 5.3: two content types": [400, 201],
    # The task is made of the whole body; what follows begins with one line end too many, and is refused.
    "RFC 9112, 7.1.1: a space and no extension": [201, 400],
    "RFC 9112, 2.2: bare LF after the size": [201, 400],
    "RFC 9112, 2.2: bare LF after the data": [201, 400],
    "RFC 9112, 7.1.1: NUL in an extension": [201, 400],
    "RFC 9110, 6.5.1: a length in the trailer": [201, 400],
    "RFC 9110, 6.5.1: a token in the trailer": [201, 400],
    "RFC 9112, 7.1.2: a trailer without a colon": [201, 400],
}
# Granian takes one that gunicorn refuses. By the test's id.
OTHERWISE = {"granian-RFC 9110, 5.3: two content types": [201, 201]}


def messages() -> Iterator[Any]:
    """Each doubtful message, as a function of the user, with its statuses."""
    for lines, name in LENGTHS:
        yield pytest.param(lambda user, lines=lines: creation(user, lines, body=TASK), TAKEN.get(name, [400]), id=name)
    for lines, name in CODINGS:
        make = lambda user, lines=lines: creation(user, lines, body=chunked(TASK))  # noqa: E731
        yield pytest.param(make, TAKEN.get(name, [400]), id=name)
    for lines, name in LINES:
        make = lambda user, lines=lines: creation(user, lines, f"Content-Length: {len(TASK)}", body=TASK)  # noqa: E731
        yield pytest.param(make, TAKEN.get(name, [400]), id=name)
    for head, name in HEADS:
        # nginx answers such a request as HTTP/0.9 has it, without a head.
        if not name.endswith("no version"):
            yield pytest.param(lambda _, head=head: head, TAKEN.get(name, [400]), id=name)
    for body, name in CHUNKS:
        broken = body.replace(b"%b", TASK) + b"\r\n0\r\n\r\n"
        make = lambda user, body=broken: creation(user, CHUNKED, body=body)  # noqa: E731
        yield pytest.param(make, TAKEN.get(name, [400]), id=name)
    for head, status, name in TOO_LONG:
        yield pytest.param(lambda _, head=head: head, [status], id=name)


def every_answer(connection: Connection) -> Iterator[Answer]:
    """Until the end of the connection."""
    with suppress(EOFError):
        while True:
            yield connection.answer()


@pytest.mark.parametrize(("message", "statuses"), list(messages()))
def test_each_message_is_read_once(
    request: pytest.FixtureRequest,
    connection: Connection,
    alice: User,
    message: Callable[[User], bytes],
    statuses: list[int],
) -> None:
    """Nothing that one server takes for a body is a request to the other: as many answers as messages, each its own."""
    statuses = OTHERWISE.get(request.node.callspec.id, statuses)
    body = b'{"title": "smuggled"}'
    last = creation(alice, f"Content-Length: {len(body)}", "Connection: close", body=body)
    connection.send(message(alice) + last)
    answers = list(every_answer(connection))
    assert [answer.status_code for answer in answers] == statuses
    for answer in answers:
        if answer.status_code >= 400 and statuses == [400, 201]:
            assert_plain(answer)
        elif answer.status_code >= 400:
            assert_plain_problem(answer, answer.status_code)
    made = ["one"] * (statuses[0] == 201) + ["smuggled"] * (statuses[1:] == [201])
    assert sorted(alice.titles()) == made


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/import"])
@pytest.mark.parametrize("size", [2**16, 2**20, 2 * 2**20])
def test_answer_that_needs_no_body_is_not_lost(connection: Connection, path: str, size: int) -> None:
    """Nor the connection: whose token has expired learns it, and not that the service can't be reached."""
    connection.send(request(f"POST {path}", f"Content-Length: {size}", body=b" " * size) * 2)
    assert [connection.answer().status_code for _ in range(2)] == [401, 401]


# What nginx adds, and what it takes away


def test_nobody_invents_where_a_request_comes_from(service: Both, connection: Connection, alice: User) -> None:
    alice.create("one")
    alice.create("two")
    invented = ["X-Forwarded-Proto: https", "X-Forwarded-Ssl: on", "X-Forwarded-Host: evil.example",
                "X-Forwarded-Port: 444", "X-Forwarded-Prefix: /evil", "Forwarded: for=203.0.113.7;host=evil.example",
                "X-Real-IP: 203.0.113.7", "SCRIPT_NAME: /evil", "X_Forwarded_Proto: https"]  # fmt: skip
    connection.send(request("GET /api/tasks?limit=1", by(alice), *invented, host="todo.example:8000"))
    assert connection.answer().headers["Link"].startswith("<http://todo.example:8000/api/tasks?limit=1&")
    for line in ("X-Forwarded-For: 203.0.113.7", "X-Forwarded-For: 203.0.113.8"):
        connection.send(request("GET /api/tasks", line))
    remaining = [int(re.findall(r"r=(\d+)", connection.answer().headers["RateLimit"])[0]) for _ in range(2)]
    assert remaining[1] == remaining[0] - 1
    assert "evil" not in service.behind.log


def logged(service: Both, text: str) -> bool:
    return text in service.log


def test_both_know_a_request_by_the_same_id(service: Both, connection: Connection) -> None:
    connection.send(request("GET /health/live", "X-Request-ID: mine-1"))
    assert connection.answer().headers.getlist("X-Request-ID") == ["mine-1"]
    for line in ("GET /health/live", "GET /metrics"):
        connection.send(request(line, "X-Request-ID: not mine"))
        [given] = connection.answer().headers.getlist("X-Request-ID")
        assert re.fullmatch(r"[0-9a-f]{32}", given)
        wait_for(partial(logged, service, given), "it is in no log")


def test_compressed_answers_keep_their_conditions(connection: Connection, alice: User) -> None:
    """RFC 9110, 13.1: nginx makes the tags weak, which does for reading; what was read that way can be changed, too."""
    task = alice.create("one", description="x" * 1500)
    item = f"/api/tasks/{task['id']}"
    tags = {}
    for path in ("/api/tasks", item):
        connection.send(request(f"GET {path}", by(alice), "Accept-Encoding: gzip"))
        answer = connection.answer()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "Accept-Encoding" in answer.headers["Vary"] + answer.headers.getlist("Vary")[-1]
        assert b"one" in gzip.decompress(answer.get_data())
        tags[path] = answer.headers["ETag"]
        assert tags[path].startswith("W/")
        connection.send(request(f"GET {path}", by(alice), "Accept-Encoding: gzip", f"If-None-Match: {tags[path]}"))
        assert connection.answer().status_code == 304
    body = b'{"title": "two"}'
    change = request(
        f"PATCH {item}", by(alice), "Content-Type: application/json", f"If-Match: {tags[item]}",
        f"Content-Length: {len(body)}", body=body,
    )  # fmt: skip
    connection.send(change + change)
    assert [connection.answer().status_code for _ in range(2)] == [200, 412]


def test_tls_and_http_2(service: Both, alice: User) -> None:
    alice.create("one")
    alice.create("two")
    context = ssl.create_default_context(cafile=service.proxy.certificate)
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
    opener.addheaders = [("Authorization", f"Bearer {alice.token}")]
    with opener.open(f"https://localhost:{service.proxy.tls_port}/api/tasks?limit=1", timeout=5) as answer:
        assert answer.headers["Link"].startswith(f"<https://localhost:{service.proxy.tls_port}/api/tasks?limit=1&")
    curl = ["curl", "--silent", "--http2", "--cacert", f"{service.proxy.certificate}", "--write-out", "%{http_version}"]
    url = f"https://localhost:{service.proxy.tls_port}/health/live"
    done = subprocess.run([*curl, url], capture_output=True, text=True, timeout=10)
    assert done.stdout == '{"status":"ok"}2'


# nginx's own refusals

REFUSED = [
    (request("GET /health/live", "Content-Length: x"), 400, "bad-request"),
    (request("GET /metrics"), 404, "not-found"),
    (request("GET /%6detrics/"), 404, "not-found"),
    (request("TRACE /api/tasks"), 405, "method-not-allowed"),
    (request("POST /api/tasks", "Content-Length: 3000000"), 413, "body-too-large"),
    (request("POST /api/tasks/import", "Content-Length: 18000000"), 413, "body-too-large"),
    (request("POST /api/alice/tasks/import/", "Content-Length: 18000000"), 413, "body-too-large"),
    (request("POST /api/tasks", "Content-Length: 3000000", "Expect: 100-continue"), 413, "body-too-large"),
    (request("GET /" + "a" * 8000), 414, "uri-too-long"),
    (request("GET /health/live", "X-A: " + "a" * 8000), 431, "headers-too-large"),
    (request("POST /api/tasks", "Transfer-Encoding: gzip"), 400, "bad-request"),
]


@pytest.mark.parametrize(("message", "status", "code"), REFUSED)
def test_refusals_are_problems(connection: Connection, message: bytes, status: int, code: str) -> None:
    """As the service's are: title and all."""
    connection.send(message)
    answer = connection.answer()
    problem = assert_problem(answer, status, code)
    assert set(problem) == {"type", "title", "status", "detail", "message", "code", "errors", "request_id"}
    assert (problem["type"], problem["errors"]) == ("about:blank", [])
    assert problem["title"] == HTTPStatus(status).phrase
    assert ("Allow" in answer.headers) == (status == 405)
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [(ORIGIN, True), ("https://other.test", True), ("https://evil.test", False), ("null", False), (f"{ORIGIN}0", False),
     ("other.test", False), (",", False), ("", False)],
)  # fmt: skip
def test_refusals_can_be_read_by_the_same_pages(connection: Connection, origin: str, allowed: bool) -> None:
    connection.send(request("GET /metrics", f"Origin: {origin}"))
    headers = connection.answer().headers
    assert headers.get("Access-Control-Allow-Origin") == (origin if allowed else None)
    assert headers.get("Access-Control-Allow-Credentials") == ("true" if allowed else None)


def test_service_that_is_not_there(database_url: str, alice: User) -> None:
    with Service(database_url, SECRET) as behind, Proxy(behind) as proxy, Client(proxy.url, alice.token) as client:
        assert client.request("GET", "/api/tasks").status == 200
        behind.stop()
        answer = client.request("POST", "/api/tasks", {"title": "one"}, Origin=ORIGIN)
    assert (answer.status, answer.headers["Content-Type"]) == (502, "application/problem+json")
    assert answer.json["code"] == "unavailable"
    assert answer.headers["Retry-After"] == "2"
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN


# One client's bursts


def test_list_sorted_anew_waits_rather_than_fails(service: Both, alice: User, bob: User) -> None:
    """A request for each of its tasks, all at once; meanwhile others are served."""
    tasks = [alice.create(f"{number}") for number in range(300)]
    bob.create("one")
    began = time.monotonic()
    with ExitStack() as connections, Client(service.proxy.url, bob.token) as client:
        moving = [connections.enter_context(Connection(service.port)) for _ in tasks]
        for position, (one, task) in enumerate(zip(moving, reversed(tasks), strict=True), 1):
            head, body = f"PATCH /api/tasks/{task['id']}", json.dumps({"position": position}).encode()
            one.send(request(head, by(alice), "Content-Type: application/json", f"Content-Length: {len(body)}",
                                    body=body))  # fmt: skip
        waited = []
        for _ in range(20):
            asked = time.monotonic()
            assert client.request("GET", "/api/tasks").status == 200
            waited.append(time.monotonic() - asked)
            time.sleep(0.05)
        assert max(waited) < 0.5
        assert {one.answer().status_code for one in moving} == {200}
    assert 2 < time.monotonic() - began < 10


def test_burst_beyond_all_bounds_is_refused(service: Both, alice: User) -> None:
    many = [Connection(service.port) for _ in range(800)]
    for one in many:
        one.send(request("GET /api/tasks?limit=1", by(alice)))
    answers = [one.answer() for one in many]
    for one in many:
        one.close()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 200
    for answer in refused:
        assert_problem(answer, 429, "rate-limited")
        assert answer.headers["Retry-After"] == "2"


def test_nothing_here_was_a_bug(service: Both, connection: Connection) -> None:
    connection.send(request("GET /health/live"))
    assert connection.answer().status_code == 200
    assert "Traceback" not in service.behind.log
    assert len(re.findall("Booting worker|Spawning worker", service.behind.log)) == 1
    # Granian puts the environment into what an app gets with each request.
    assert SECRET not in service.log
    assert not re.search(r"\[(alert|crit|emerg)\]", service.proxy.log)

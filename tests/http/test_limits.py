"""The rate limit: by user, by address without a valid token, through Redis, and without Redis when that fails."""

import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask

from tests.conftest import ORIGIN, SECRET, User, assert_problem, settings_for, token, user_of
from tests.support.live import Service
from tests.support.servers import free_port
from todo_service import create_app
from todo_service.config import SettingsError
from todo_service.http import rate_limit as limits

Make = Callable[..., Flask]


@pytest.fixture
def limited(database_url: str) -> Make:
    """Makes the app with another rate limit."""
    return lambda rate, **changes: create_app(settings_for(database_url, rate_limit=rate, **changes))


def statuses(user: User, count: int) -> list[int]:
    return [user.get("/api/tasks").status_code for _ in range(count)]


def stranger(app: Flask, peer: str, authorization: str | None = None, **headers: str) -> Any:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    if authorization:
        headers["Authorization"] = authorization
    return app.test_client().get("/api/tasks", headers=headers, environ_base={"REMOTE_ADDR": peer})


def test_one_more_than_the_limit_is_refused(limited: Make) -> None:
    alice = user_of(limited("3/minute"), "alice")
    for remaining in (2, 1, 0):
        response = alice.get("/api/tasks")
        assert response.status_code == 200
        assert response.headers["RateLimit-Policy"] == '"user";q=3;w=60'
        assert re.fullmatch(rf'"user";r={remaining};t=(60|5\d)', response.headers["RateLimit"])
    response = alice.post("/api/tasks", json={"title": "One too many"}, headers={"Origin": ORIGIN})
    problem = assert_problem(response, 429, "rate-limited")
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert f"in {response.headers['Retry-After']} s" in problem["detail"]
    assert response.headers["RateLimit"] == f'"user";r=0;t={response.headers["Retry-After"]}'
    assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert {"RateLimit", "RateLimit-Policy", "Retry-After"} <= set(
        response.headers["Access-Control-Expose-Headers"].split(", ")
    )


def test_errors_count_and_tell(limited: Make) -> None:
    alice = user_of(limited("2/minute"), "alice")
    assert alice.post("/api/tasks", json={}).headers["RateLimit"].startswith('"user";r=1;')
    assert alice.get("/api/somebody-else/tasks").headers["RateLimit"].startswith('"user";r=0;')
    assert statuses(alice, 1) == [429]


def test_users_have_limits_of_their_own(limited: Make) -> None:
    app = limited("2/minute")
    assert statuses(user_of(app, "alice"), 3) == [200, 200, 429]
    assert statuses(user_of(app, "bob"), 3) == [200, 200, 429]


def test_window_ends(limited: Make) -> None:
    alice = user_of(limited("2 per 1 second"), "alice")
    assert statuses(alice, 3) == [200, 200, 429]
    time.sleep(1.05)
    assert statuses(alice, 3) == [200, 200, 429]


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Basic YTpi", 401),
        ("Bearer", 400),
        ("Bearer a.b.c", 401),
        (f"Bearer {token('eve', 'x' * 32)}", 401),
    ],
)
def test_without_a_valid_token_the_address_is_counted(limited: Make, authorization: str | None, status: int) -> None:
    app = limited("2/minute")
    answers = [stranger(app, "203.0.113.7", authorization) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 429]
    assert answers[0].headers["RateLimit"].startswith('"address";r=1;')
    assert_problem(answers[2], 429, "rate-limited")
    assert stranger(app, "203.0.113.8", authorization).status_code == status
    assert stranger(app, "203.0.113.7", f"Bearer {token('alice')}").status_code == 200


PROXY, CLIENT, OTHER, EVIL = "10.0.0.1", "203.0.113.7", "203.0.113.8", "198.51.100.1"


@pytest.mark.parametrize(
    ("allowed", "first", "second", "same"),
    [
        pytest.param(PROXY, (EVIL, CLIENT), (EVIL, OTHER), True, id="the header of an untrusted peer has no effect"),
        pytest.param(PROXY, (PROXY, CLIENT), (PROXY, OTHER), False, id="a trusted proxy names its caller"),
        pytest.param(PROXY, (PROXY, f"{OTHER}, {CLIENT}"), (PROXY, CLIENT), True, id="only the caller, no invention"),
        pytest.param("10.0.0.0/8", (PROXY, f"{CLIENT}, 10.9.9.9"), (PROXY, CLIENT), True, id="two proxies"),
        pytest.param("*", (EVIL, f"{OTHER}, {CLIENT}"), (PROXY, CLIENT), True, id="any proxy names its caller"),
        pytest.param(PROXY, (PROXY, "unknown"), (PROXY, ""), True, id="a caller without an address"),
        pytest.param("", ("2001:db8::1", ""), ("2001:db8::ffff:1", ""), True, id="an IPv6 network is one client"),
        pytest.param("", ("2001:db8::1", ""), ("2001:db8:0:1::1", ""), False, id="another IPv6 network"),
        pytest.param("", ("::ffff:203.0.113.7", ""), (CLIENT, ""), True, id="IPv4 in IPv6"),
    ],
)
def test_whose_address_counts(
    limited: Make, allowed: str, first: tuple[str, str], second: tuple[str, str], same: bool
) -> None:
    app = limited("1/minute", forwarded_allow_ips=allowed)
    assert stranger(app, first[0], X_Forwarded_For=first[1]).status_code == 401
    assert stranger(app, second[0], X_Forwarded_For=second[1]).status_code == (429 if same else 401)


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/", "/api/docs", "/api/openapi.json", "/api/nothing"]
)
def test_what_needs_no_token_is_not_limited(limited: Make, path: str) -> None:
    client = limited("1/minute").test_client()
    answers = [client.get(path) for _ in range(3)]
    assert len({answer.status_code for answer in answers}) == 1
    assert not any("RateLimit" in answer.headers for answer in answers)


def test_preflight_is_not_limited(limited: Make) -> None:
    client = limited("1/minute").test_client()
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
    assert [client.options("/api/tasks", headers=headers).status_code for _ in range(3)] == [200] * 3


def test_a_flood_of_addresses_fills_no_memory(limited: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_WINDOWS", 50)
    windows = limits.Windows()
    monkeypatch.setattr(limits, "Windows", lambda: windows)
    app = limited("1/minute")
    assert {stranger(app, f"203.0.113.{number}").status_code for number in range(120)} == {401}
    assert len(windows) == 20
    assert stranger(app, "203.0.113.119").status_code == 429


def windows_of_which(over: int, monkeypatch: pytest.MonkeyPatch) -> limits.Windows:
    """As many windows as there may be, so many of them over; and then one more."""
    monkeypatch.setattr(limits, "MAX_WINDOWS", 50)
    windows = limits.Windows()
    for number in range(50):
        windows.hit(f"{number}", 1 if number < over else 60)
    time.sleep(1.05)
    windows.hit("comes", 60)
    return windows


def test_windows_that_are_over_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = windows_of_which(49, monkeypatch)
    assert len(windows) == 2
    assert windows.hit("49", 60)[0] == 2


def test_windows_are_not_looked_through_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they would be by each newcomer of a flood, were one made room for at a time."""
    assert len(windows_of_which(1, monkeypatch)) <= 26


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"rate_limit_storage": "redis://127.0.0.1:port"}, "RATELIMIT_STORAGE_URI"),
        ({"rate_limit_storage": "redis://127.0.0.1?colour=red"}, "RATELIMIT_STORAGE_URI"),
        ({"rate_limit": "300/fortnight"}, "RATELIMIT_DEFAULT"),
        ({"forwarded_allow_ips": "my-proxy"}, "FORWARDED_ALLOW_IPS"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, str], variable: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        create_app(settings_for("postgresql://127.0.0.1:1/none", **changes))


class RedisServer:
    """A Redis of its own on a port of 127.0.0.1, which can be killed, halted and started again."""

    def __init__(self, program: str, folder: str, *options: str) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder]
        self._command += options or ("--save", "")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError("Redis did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def halt(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian package redis-server)")
    with tempfile.TemporaryDirectory(prefix="todo-redis-") as folder:
        server = RedisServer(program, folder)
        yield server
        server.kill()


def test_redis_is_shared(limited: Make, redis: RedisServer) -> None:
    one = user_of(limited("3/minute", rate_limit_storage=redis.url), "alice")
    other = User(one.id, limited("3/minute", rate_limit_storage=redis.url).test_client(), one.token)
    assert statuses(one, 2) + statuses(other, 2) + statuses(one, 1) == [200, 200, 200, 429, 429]
    headers = other.get("/api/tasks").headers
    assert headers["RateLimit"] == f'"user";r=0;t={headers["Retry-After"]}'
    assert 50 <= int(headers["Retry-After"]) <= 60


def test_redis_window_ends(limited: Make, redis: RedisServer) -> None:
    alice = user_of(limited("2/second", rate_limit_storage=redis.url), "alice")
    assert statuses(alice, 3) == [200, 200, 429]
    time.sleep(1.05)
    assert statuses(alice, 3) == [200, 200, 429]


def test_workers_count_together(database_url: str, redis: RedisServer) -> None:
    with Service(database_url, SECRET, RATELIMIT_DEFAULT="10/minute", RATELIMIT_STORAGE_URI=redis.url) as service:
        alices = urllib.request.Request(
            f"{service.url}/api/tasks", headers={"Authorization": f"Bearer {token('alice')}"}
        )
        # A connection for each, and many at a time, so that both workers get some.
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(status_of, [alices] * 40))
    assert sorted(answers) == [200] * 10 + [429] * 30


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            status: int = response.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return status


@pytest.mark.parametrize(
    ("fail", "recover"),
    [(RedisServer.kill, RedisServer.start), (RedisServer.halt, RedisServer.go_on)],
    ids=["killed", "hanging"],
)
def test_requests_pass_while_redis_fails(
    limited: Make,
    redis: RedisServer,
    fail: Callable[[RedisServer], None],
    recover: Callable[[RedisServer], None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "PAUSE_SECONDS", 2)
    app = limited("2/minute", rate_limit_storage=redis.url)
    limits.log.addHandler(caplog.handler)
    alice = user_of(app, "alice")
    assert statuses(alice, 3) == [200, 200, 429]

    fail(redis)
    began = time.monotonic()
    assert statuses(alice, 20) == [200] * 20
    # The first waits for the answer that doesn't come; the others don't.
    assert time.monotonic() - began < 1.5
    assert "RateLimit" not in alice.get("/api/tasks").headers
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "Redis fails, so requests are not limited"
    ]

    recover(redis)
    time.sleep(2.1)
    assert 429 in statuses(alice, 5)
    assert caplog.records[-1].message.startswith("Redis answers again")


def test_a_redis_that_was_never_there(limited: Make) -> None:
    app = limited("1/minute", rate_limit_storage=f"redis://127.0.0.1:{free_port()}")
    began = time.monotonic()
    assert statuses(user_of(app, "alice"), 5) == [200] * 5
    assert [stranger(app, CLIENT).status_code for _ in range(3)] == [401] * 3
    assert time.monotonic() - began < 1.5

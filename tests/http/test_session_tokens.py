"""Better Auth's session tokens as bearer tokens (`BETTER_AUTH_SESSIONS=on`): a real one is asked whose they are.

What Better Auth never does by itself, hanging and lying, a server of the tests' own does.
"""

import json
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

import pytest
from flask import Flask

from tests.conftest import ORIGIN, assert_problem, settings_for, token
from tests.http.test_auth import ask
from tests.support.issuer import Issuer, Session
from tests.support.keyserver import LocalServer, send
from todo_service import create_app
from todo_service.dialect import parse
from todo_service.http.tokens import sessions


@pytest.fixture(scope="module")
def real(issuer: Issuer, database_url: str) -> Flask:
    """The service beside a real Better Auth."""
    return create_app(settings_for(database_url, session_url=f"{issuer.origin}/api/auth/get-session"))


@pytest.mark.parametrize("token_of", [Session.opaque, Session.opaque_signed])
def test_whose_session_it_is(issuer: Issuer, real: Flask, token_of: Any) -> None:
    ann, bob = issuer.sign_up("Ann"), issuer.sign_up("Bob")
    for user, other in ((ann, bob), (bob, ann)):
        assert ask(real, token_of(user)).status_code == 200
        assert ask(real, token_of(user), path=f"/api/{user.user_id}/tasks").status_code == 200
        assert ask(real, token_of(user), path=f"/api/{other.user_id}/tasks").status_code == 403


def test_a_session_and_a_jwt_are_the_same_user(issuer: Issuer, real: Flask) -> None:
    ann = issuer.sign_up("Ann")
    made = real.test_client().post(
        "/api/tasks", json={"title": "by session"}, headers={"Authorization": f"Bearer {ann.opaque()}"}
    )
    assert made.status_code == 201
    assert [task["title"] for task in ask(real, ann.hs256()).json] == ["by session"]


def test_the_session_in_its_cookie(issuer: Issuer, database_url: str) -> None:
    """As the browser has it, which Better Auth takes without its bearer plugin."""
    name = "better-auth.session_token"
    settings = settings_for(database_url, session_url=f"{issuer.origin}/api/auth/get-session")
    app = create_app(replace(settings, dialect=parse(f"cookie={name}")))
    ann, bob = issuer.sign_up("Ann"), issuer.sign_up("Bob")
    client = app.test_client()
    client.set_cookie(name, ann.opaque_signed(), domain="localhost")
    made = client.post("/api/tasks", json={"title": "by cookie"}, headers={"Origin": ORIGIN})
    assert made.status_code == 201
    assert [task["title"] for task in ask(app, ann.hs256()).json] == ["by cookie"]
    assert client.get(f"/api/{bob.user_id}/tasks").status_code == 403
    assert_problem(client.post("/api/tasks", json={"title": "from elsewhere"}), 403, "cross-site")


def test_sign_out_counts_within_the_time(issuer: Issuer, real: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sessions.REMEMBER_SECONDS <= 60
    monkeypatch.setattr(sessions, "REMEMBER_SECONDS", 1)
    ann = issuer.sign_up("Ann")
    opaque = ann.opaque()
    assert ask(real, opaque).status_code == 200
    ann.sign_out()
    signed_out = time.monotonic()
    while ask(real, opaque).status_code != 401:
        assert time.monotonic() - signed_out < 3
        time.sleep(0.05)
    assert "sign in again" in assert_problem(ask(real, opaque), 401, "unauthorized")["detail"]


@pytest.mark.parametrize("unsigned", [True, False])
def test_nobody_s_token(issuer: Issuer, real: Flask, unsigned: bool) -> None:
    """Neither one that nobody has, nor somebody's with a signature of one's own."""
    opaque = secrets.token_hex(16) if unsigned else f"{issuer.sign_up('Ann').opaque()}.{'A' * 43}="
    assert_problem(ask(real, opaque), 401, "unauthorized")


@pytest.mark.usefixtures("issuer")
def test_better_auth_is_down(database_url: str) -> None:
    with Issuer.start(settings_for(None).secrets[0]) as issuer:
        app = create_app(settings_for(database_url, session_url=f"{issuer.origin}/api/auth/get-session"))
        ann, bob = issuer.sign_up("Ann"), issuer.sign_up("Bob")
        first, second, by_secret = ann.opaque(), bob.opaque(), ann.hs256()
        assert ask(app, first).status_code == 200
        issuer.stop()
        assert [ask(app, known).status_code for known in (first, by_secret)] == [200, 200]
        response = ask(app, second)
        assert_problem(response, 503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0


@dataclass
class AuthServer(LocalServer):
    """Says of every token what `session` holds. `hanging`: nothing at all."""

    session: Any = None
    hanging: bool = False
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.url = f"{self.origin}/api/auth/get-session"

    def answer_to(self, handler: BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.headers["Authorization"])
        if self.hanging:
            self.stopping.wait()
        send(handler, 200, self.session if isinstance(self.session, bytes) else json.dumps(self.session).encode())


@pytest.fixture
def auth() -> Iterator[AuthServer]:
    with AuthServer() as auth:
        yield auth


@pytest.fixture
def app(database_url: str, auth: AuthServer) -> Flask:
    return create_app(settings_for(database_url, session_url=auth.url, threads=16))


def session(seconds: float = 3600, user: str = "ann", of: str = "ann") -> dict[str, Any]:
    end = datetime.now(UTC) + timedelta(seconds=seconds)
    return {"session": {"userId": of, "expiresAt": end.isoformat().replace("+00:00", "Z")}, "user": {"id": user}}


def opaque() -> str:
    return secrets.token_hex(16)


@pytest.mark.parametrize(
    "signature", ["", ".AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA%2B%3D"], ids=["bare", "of a cookie"]
)
def test_a_session_is_asked_for_once(app: Flask, auth: AuthServer, signature: str) -> None:
    """Also by the requests that a page sends all at once."""
    auth.session = session()
    token = opaque() + signature
    with ThreadPoolExecutor(4) as page:
        assert list(page.map(lambda _: ask(app, token).status_code, range(20))) == [200] * 20
    assert auth.asked == [f"Bearer {unquote(token)}"]


def test_never_beyond_its_end(app: Flask, auth: AuthServer) -> None:
    auth.session = session(seconds=0.6)
    token = opaque()
    assert ask(app, token).status_code == 200
    time.sleep(0.7)
    assert_problem(ask(app, token), 401, "unauthorized")


@pytest.mark.parametrize(
    "answer", [{}, [], {"session": None}, {"session": {"expiresAt": "soon"}}, b"<!doctype html>", b"[" * 50_000]
)
def test_what_is_no_session_lets_nobody_in(app: Flask, auth: AuthServer, answer: Any) -> None:
    auth.session = answer
    assert_problem(ask(app, opaque()), 503, "unavailable")


@pytest.mark.parametrize("answer", [session(user="bob"), session(user="", of=""), session(seconds=-5)])
def test_a_session_that_does_not_hold(app: Flask, auth: AuthServer, answer: Any) -> None:
    auth.session = answer
    assert_problem(ask(app, opaque()), 401, "unauthorized")


@pytest.mark.parametrize(
    "token",
    [
        token("ann"),
        token("ann")[:-4] + "AAAA",
        "a.b.c",
        "a.b.c.d.e",
        "undefined",
        "short",
        "with=an=odd=form" * 4,
        "é" * 32,
    ],
)
def test_never_asked(app: Flask, auth: AuthServer, token: str) -> None:
    """Of what looks like a JWT, good or bad, and of what can't be a session token."""
    auth.session = session(user="mallory", of="mallory")
    ask(app, token)
    assert auth.asked == []


def test_while_it_hangs_jwts_go_on(app: Flask, auth: AuthServer) -> None:
    auth.hanging = True
    with ThreadPoolExecutor(12) as crowd:
        asked = [crowd.submit(ask, app, opaque()) for _ in range(12)]
        while not auth.asked:
            time.sleep(0.01)
        for n in range(20):
            assert ask(app, token(f"user-{n}")).status_code == 200
        # Still hanging: none of them had to wait for it.
        assert not all(question.done() for question in asked)
        began = time.monotonic()
        assert {question.result().status_code for question in asked} == {503}
        assert time.monotonic() - began < sessions.TIMEOUT_SECONDS + 1
    assert len(auth.asked) == 1


def test_random_tokens_cause_few_questions(app: Flask, auth: AuthServer) -> None:
    """A thousand of them, while others come with JWTs."""
    began = time.monotonic()
    with ThreadPoolExecutor(8) as crowd:
        statuses = {response.status_code for response in crowd.map(lambda _: ask(app, opaque()), range(1000))}
        assert ask(app, token("ann")).status_code == 200
    windows = int(time.monotonic() - began) + 2
    assert statuses <= {401, 503}
    assert 1 <= len(auth.asked) <= sessions.QUESTIONS * windows


def test_a_bad_token_is_asked_for_once(app: Flask, auth: AuthServer) -> None:
    token = opaque()
    assert {ask(app, token).status_code for _ in range(30)} == {401}
    assert len(auth.asked) == 1

"""A real Better Auth and the service as it is shipped: its users sign up there, and use their tasks here."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.conftest import SECRET
from tests.support.issuer import Issuer, Session
from tests.support.live import Service
from todo_service.http.tokens import keys as jwks

TOKENS = {
    "Better Auth /token": Session.eddsa,
    "Better Auth jwt.sign": Session.hs256_plugin,
    "a route with jose": Session.hs256,
    "Better Auth session_data": Session.session_cookie_jwt,
}
NO_TOKENS = {"Better Auth session token": Session.opaque, "Better Auth session token, signed": Session.opaque_signed}


@pytest.fixture(scope="module")
def service(issuer: Issuer, database_url: str) -> Iterator[Service]:
    with Service(database_url, SECRET, BETTER_AUTH_URL=issuer.origin) as service:
        yield service


def send(service: Service, token: str, method: str = "GET", path: str = "/api/tasks", body: Any = None) -> Any:
    """Status, headers and parsed body of the answer."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    request = Request(service.url + path, data, headers, method=method)
    try:
        with urlopen(request, timeout=10) as response:
            return response.status, response.headers, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


@pytest.mark.parametrize("token_of", TOKENS.values(), ids=TOKENS)
def test_tokens_of_two_users(issuer: Issuer, service: Service, token_of: Callable[[Session], str]) -> None:
    """Each creates and lists with it, and neither sees anything of the other's."""
    ann, bob = issuer.sign_up("Ann"), issuer.sign_up("Bob")
    for user in (ann, bob):
        status, _, task = send(service, token_of(user), "POST", body={"title": f"{user.name}'s"})
        assert (status, task["user_id"]) == (201, user.user_id)
    for user, other in ((ann, bob), (bob, ann)):
        status, _, tasks = send(service, token_of(user))
        assert (status, [task["title"] for task in tasks]) == (200, [f"{user.name}'s"])
        assert send(service, token_of(other), path=f"/api/tasks/{tasks[0]['id']}")[0] == 403
        assert send(service, token_of(other), path=f"/api/{user.user_id}/tasks")[0] == 403
        assert send(service, token_of(user), path=f"/api/{user.user_id}/tasks")[2] == tasks


def test_all_tokens_of_a_user_are_the_same_user(issuer: Issuer, service: Service) -> None:
    ann = issuer.sign_up("Ann")
    for title, token_of in TOKENS.items():
        assert send(service, token_of(ann), "POST", body={"title": title})[0] == 201
    for token_of in TOKENS.values():
        assert {task["title"] for task in send(service, token_of(ann))[2]} == set(TOKENS)


@pytest.mark.parametrize("token_of", NO_TOKENS.values(), ids=NO_TOKENS)
def test_session_token_gets_a_hint(issuer: Issuer, service: Service, token_of: Callable[[Session], str]) -> None:
    status, headers, problem = send(service, token_of(issuer.sign_up("Ann")))
    assert status == 401
    assert headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    assert "authClient.token()" in problem["detail"]


def test_rotated_key(issuer: Issuer, service: Service) -> None:
    """Tokens by the new key are accepted within the cool-down, those by the old one all the time."""
    ann = issuer.sign_up("Ann")
    older = ann.eddsa()
    assert send(service, older)[0] == 200
    issuer.rotate()
    deadline = time.monotonic() + jwks.COOL_DOWN_SECONDS + 0.5
    newer = ann.eddsa()
    assert newer.split(".")[0] != older.split(".")[0]
    while send(service, newer)[0] != 200:
        assert time.monotonic() < deadline
        assert send(service, older)[0] == 200
        time.sleep(0.1)


@pytest.mark.usefixtures("issuer")
def test_better_auth_is_down(database_url: str) -> None:
    """A service that has the keys goes on; one that doesn't says when to try again, and recovers by itself."""
    with Issuer.start(SECRET) as issuer:
        environment = {"BETTER_AUTH_URL": issuer.origin, "WEB_CONCURRENCY": "1"}
        with (
            Service(database_url, SECRET, None, **environment) as warm,
            Service(database_url, SECRET, None, **environment) as cold,
        ):
            ann, bob = issuer.sign_up("Ann"), issuer.sign_up("Bob")
            first, second, by_secret = ann.eddsa(), bob.eddsa(), ann.hs256()
            assert send(warm, first)[0] == 200
            issuer.stop()
            assert [send(warm, token)[0] for token in (first, second, by_secret)] == [200, 200, 200]
            status, headers, problem = send(cold, first)
            assert (status, problem["code"]) == (503, "unavailable")
            assert int(headers["Retry-After"]) > 0
            assert send(cold, by_secret)[0] == 200
            issuer.start_again()
            tried = time.monotonic()
            carol = issuer.sign_up("Carol").eddsa()
            for service in (warm, cold):
                while send(service, carol)[0] != 200:
                    assert time.monotonic() - tried < jwks.COOL_DOWN_SECONDS + 1
                    time.sleep(0.1)
            assert send(cold, first)[0] == 401

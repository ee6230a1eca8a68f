"""The key server's keys: fetched rarely, replaced soon after a rotation, and kept on when the key server fails."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from flask import Flask
from jwt.utils import base64url_encode

from tests.conftest import SECRET, assert_problem, settings_for
from tests.http.test_auth import ISSUER, MALFORMED, UNLISTED, ask, assert_refused, claims, hs256, plain, signed
from tests.support.keyserver import ALGORITHMS, ANSWERS, MAKE, Key, KeyServer
from tests.support.live import Service
from todo_service import create_app
from todo_service.http.tokens import keys as jwks

pytestmark = pytest.mark.timed

FAILURES = [answer for answer in ANSWERS if answer != "keys"]
# Seconds: what needs nothing of the key server takes milliseconds, and this is less than any wait for it.
AT_ONCE = 0.4
FORGER = Key("", "EdDSA", MAKE["EdDSA"]())

Start = Callable[[], Flask]


@pytest.fixture
def keys() -> Iterator[KeyServer]:
    with KeyServer() as keys:
        keys.add("EdDSA")
        yield keys


@pytest.fixture
def start(database_url: str, keys: KeyServer) -> Start:
    """Makes a service that has no keys yet."""
    settings = settings_for(database_url, jwks_url=keys.url, issuers=(ISSUER,), audience=(ISSUER,))
    return lambda: create_app(settings)


@pytest.fixture
def warm(start: Start, keys: KeyServer) -> Flask:
    """A service that has the keys."""
    app = start()
    assert ask(app, fresh(keys)).status_code == 200
    return app


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetches are given up sooner, and repeated sooner."""
    monkeypatch.setattr(jwks, "TIMEOUT_SECONDS", 0.6)
    monkeypatch.setattr(jwks, "COOL_DOWN_SECONDS", 0.7)


def fresh(keys: KeyServer) -> str:
    """A valid token of somebody new, so that it is none the service remembers."""
    return signed(keys, f"user-{secrets.token_hex(6)}")


def unknown() -> str:
    """What anybody can make: a token by a key that the key server never had."""
    return FORGER.sign(claims("mallory"), {"kid": secrets.token_hex(8)})


def ask_in_time(app: Flask, token: str, seconds: float = AT_ONCE) -> Any:
    began = time.monotonic()
    response = ask(app, token)
    assert time.monotonic() - began < seconds
    return response


def await_acceptance(app: Flask, keys: KeyServer, seconds: float) -> None:
    """New tokens are accepted within this time; until then they are refused, or told to come again."""
    deadline = time.monotonic() + seconds
    while (status := ask(app, fresh(keys)).status_code) != 200:
        assert status in (401, 503)
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.usefixtures("impatient")
def test_unknown_kids_cause_one_fetch_per_cool_down(warm: Flask, keys: KeyServer) -> None:
    began = time.monotonic()
    for _ in range(50):
        assert_refused(ask(warm, unknown()), UNLISTED)
        assert ask(warm, fresh(keys)).status_code == 200
        time.sleep(0.02)
    cool_downs = (time.monotonic() - began) / jwks.COOL_DOWN_SECONDS
    assert 1 <= keys.requests - 1 <= cool_downs + 1


def test_crowd_at_the_start_causes_one_fetch(start: Start, keys: KeyServer) -> None:
    app = start()
    tokens = [fresh(keys) for _ in range(25)] + [unknown() for _ in range(25)]
    with ThreadPoolExecutor(10) as crowd:
        statuses = list(crowd.map(lambda token: ask(app, token).status_code, tokens))
    assert statuses == [200] * 25 + [401] * 25
    assert keys.requests == 1


def test_rotation_is_noticed_within_the_cool_down(warm: Flask, keys: KeyServer) -> None:
    """With the constants as they are; five seconds is short enough."""
    withdrawn = keys.key("EdDSA")
    keys.rotate()
    await_acceptance(warm, keys, 5.5)
    assert_refused(ask(warm, withdrawn.sign(claims("ann"))), UNLISTED)


@pytest.mark.usefixtures("impatient")
def test_rotation_after_the_cool_down_costs_nobody_a_refusal(warm: Flask, keys: KeyServer) -> None:
    time.sleep(jwks.COOL_DOWN_SECONDS)
    older = fresh(keys)
    keys.add("EdDSA")
    with ThreadPoolExecutor(8) as crowd:
        statuses = list(crowd.map(lambda token: ask(warm, token).status_code, [fresh(keys) for _ in range(20)]))
    assert statuses == [200] * 20
    assert ask(warm, older).status_code == 200


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answer", FAILURES)
def test_cold_service_without_keys(start: Start, keys: KeyServer, answer: str) -> None:
    """503, not 401: a frontend would take a 401 for a reason to log its user out (RFC 9110, section 15.6.4)."""
    keys.answer = answer
    app = start()
    for seconds in (jwks.TIMEOUT_SECONDS + AT_ONCE, AT_ONCE):
        response = ask_in_time(app, fresh(keys), seconds)
        assert_problem(response, 503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0
        assert "WWW-Authenticate" not in response.headers
    assert keys.requests == 1
    assert ask_in_time(app, hs256(plain("ann"))).status_code == 200
    keys.answer = "keys"
    await_acceptance(app, keys, jwks.COOL_DOWN_SECONDS + jwks.TIMEOUT_SECONDS + AT_ONCE)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("answer", FAILURES)
def test_warm_service_goes_on(warm: Flask, keys: KeyServer, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the keys it has, however old, and at once."""
    monkeypatch.setattr(jwks, "FRESH_SECONDS", 0)
    time.sleep(jwks.COOL_DOWN_SECONDS)
    keys.answer = answer
    for _ in range(5):
        assert ask_in_time(warm, fresh(keys)).status_code == 200
    assert_refused(ask_in_time(warm, unknown(), jwks.TIMEOUT_SECONDS + AT_ONCE), UNLISTED)
    assert ask_in_time(warm, fresh(keys)).status_code == 200
    assert keys.requests >= 2
    keys.answer = "keys"
    keys.rotate()
    await_acceptance(warm, keys, jwks.COOL_DOWN_SECONDS + jwks.TIMEOUT_SECONDS + AT_ONCE)


def test_old_keys_are_looked_up_again(warm: Flask, keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A withdrawn key stops working although nobody sends a new one."""
    monkeypatch.setattr(jwks, "FRESH_SECONDS", 0)
    monkeypatch.setattr(jwks, "COOL_DOWN_SECONDS", 0.1)
    withdrawn = keys.key("EdDSA")
    keys.rotate()
    deadline = time.monotonic() + 3
    while ask(warm, withdrawn.sign(claims(f"user-{secrets.token_hex(6)}"))).status_code == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_valid_tokens_wait_for_no_fetch(warm: Flask, keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid tokens must not queue behind a hanging key server."""
    monkeypatch.setattr(jwks, "FRESH_SECONDS", 0)
    monkeypatch.setattr(jwks, "COOL_DOWN_SECONDS", 0)
    keys.answer = "hang"
    with ThreadPoolExecutor(4) as crowd:
        refused = [crowd.submit(ask, warm, unknown()) for _ in range(8)]
        for _ in range(20):
            assert ask_in_time(warm, fresh(keys)).status_code == 200
    for future in refused:
        assert_refused(future.result(), UNLISTED)


def test_fetches_do_not_pile_up(warm: Flask, keys: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of a trickled head comes in time, so this fetch goes on for as long as the key server likes."""
    monkeypatch.setattr(jwks, "FRESH_SECONDS", 0)
    monkeypatch.setattr(jwks, "COOL_DOWN_SECONDS", 0)
    keys.answer = "trickled head"
    for _ in range(10):
        assert ask_in_time(warm, fresh(keys)).status_code == 200
        time.sleep(0.03)
    assert keys.requests == 2


def test_unknown_kids_do_not_hold_all_threads(database_url: str, keys: KeyServer) -> None:
    """The service as it is shipped: more senders of unknown kids than threads, and a key server that hangs."""
    over = threading.Event()

    def annoy(url: str) -> None:
        while not over.is_set():
            get(url, unknown())

    environment = {"BETTER_AUTH_JWKS_URL": keys.url, "BETTER_AUTH_ISSUER": ISSUER, "WEB_CONCURRENCY": "1"}
    with Service(database_url, SECRET, None, **environment) as service, ThreadPoolExecutor(8) as crowd:
        assert get(service.url, fresh(keys)) == 200
        keys.answer = "hang"
        time.sleep(jwks.COOL_DOWN_SECONDS)
        for _ in range(8):
            crowd.submit(annoy, service.url)
        took: list[float] = []
        try:
            while sum(took) < jwks.TIMEOUT_SECONDS:
                began = time.monotonic()
                assert get(service.url, fresh(keys)) == 200
                took.append(time.monotonic() - began)
        finally:
            over.set()
    assert keys.requests == 2
    assert sorted(took)[len(took) // 2] < AT_ONCE


def get(url: str, token: str) -> int:
    """The status of the bearer's list."""
    try:
        with urlopen(Request(f"{url}/api/tasks", headers={"Authorization": f"Bearer {token}"}), timeout=10) as response:
            return int(response.status)
    except HTTPError as error:
        with error:
            return error.code


ODD_KEYS: list[Any] = [
    *(None, 1, "key", [], {}, {"kty": "RSA"}, {"kty": ["RSA"], "kid": "a"}, {"kty": "EC", "crv": "P-256", "kid": "a"}),
    {"kty": "OKP", "crv": "X25519", "x": "A" * 43, "kid": "a"},
    FORGER.jwk | {"alg": "none"},
    FORGER.jwk | {"alg": "HS256"},
    FORGER.jwk | {"alg": ["EdDSA"]},
    FORGER.jwk | {"kid": ["a"]},
    FORGER.jwk | {"x": "AA"},
    {name: value for name, value in FORGER.jwk.items() if name != "kid"},
]


def test_odd_keys_are_passed_over(start: Start, keys: KeyServer) -> None:
    """RFC 7517, section 5: keys that are not understood are ignored."""
    for odd in ODD_KEYS:
        keys.extra = [odd]
        assert ask(start(), fresh(keys)).status_code == 200, odd


def test_key_without_alg(start: Start, keys: KeyServer) -> None:
    """RFC 7517, section 4.4: optional. The kind of key says it."""
    key = Key("no-alg", "ES256", MAKE["ES256"]())
    keys.extra = [{name: value for name, value in key.jwk.items() if name != "alg"}]
    assert ask(start(), key.sign(claims("ann"))).status_code == 200


@pytest.mark.parametrize("alg", ["RS256", "EdDSA", "ES256"])
def test_key_published_with_its_private_half(start: Start, keys: KeyServer, alg: str) -> None:
    """Anybody can sign with it."""
    key = Key("private", alg, MAKE[alg]())
    keys.extra = [key.jwk | ALGORITHMS[alg].to_jwk(key.private, as_dict=True)]
    assert_refused(ask(start(), key.sign(claims("ann"))), UNLISTED)


@pytest.mark.parametrize("alg", ["RS256", "PS256"])
def test_rsa_key_that_is_too_short(start: Start, keys: KeyServer, alg: str) -> None:
    """RFC 7518, sections 3.3 and 3.5: 2048 bits at least."""
    key = Key("short", alg, rsa.generate_private_key(65537, 1024))
    keys.extra = [key.jwk]
    assert_refused(ask(start(), key.sign(claims("ann"))), UNLISTED)


def test_published_secret_is_no_secret(start: Start, keys: KeyServer) -> None:
    """RFC 8725, section 3.1: HS256 is never verified with what the key server lists."""
    secret = secrets.token_bytes(32)
    keys.extra = [{"kty": "oct", "k": base64url_encode(secret).decode(), "kid": "oct", "alg": "HS256"}]
    assert_refused(ask(start(), hs256(claims("ann"), {"kid": "oct"}, key=secret)), MALFORMED)

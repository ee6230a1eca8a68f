"""The key server's public keys (RFC 7517): fetched when needed, kept, and kept on when the server is down.

An unknown `kid` may mean that the keys were rotated, so it causes a fetch, but no more than one in a cool-down, because
anybody can send unknown ones. The fetch runs in a thread of its own, and a request waits for it only if it needs its
result, and not for long: requests with keys that are there go on. What a token must look like is left to
`authenticator.py`.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from http.client import HTTPException
from typing import Any

import jwt

from ...errors import Unauthorized, Unavailable
from . import outgoing

log = logging.getLogger(__name__)

ASYMMETRIC = frozenset({"EdDSA", "ES256", "ES512", "RS256", "PS256"})
FRESH_SECONDS = 300
COOL_DOWN_SECONDS = 5
TIMEOUT_SECONDS = 3
# How old a fetch may get with requests waiting for it because of a new `kid`. Counted from its start, not from the
# request's: with a hanging key server, unknown kids could hold all of a worker's threads otherwise.
ROTATION_PATIENCE_SECONDS = 1


class KeyServer:
    """The keys at `url`, each time fetched in a `watch`. `key` is safe to call from many threads."""

    watch: Callable[[], AbstractContextManager[object]] = nullcontext

    def __init__(self, url: str) -> None:
        self.url = url
        self._keys: dict[tuple[str, str], Any] | None = None
        self._tried = self._fetched = float("-inf")
        self._lock = threading.Lock()
        self._fetch = threading.Thread()

    def key(self, kid: Any, algorithm: str) -> Any:
        """The public key `kid` for `algorithm`. Raises Unauthorized if there is none, Unavailable without any."""
        if not isinstance(kid, str):
            raise Unauthorized("the token does not say which key it is signed with")
        if self._keys is None:
            self._refresh(patience=TIMEOUT_SECONDS)
        elif (kid, algorithm) not in self._keys:
            self._refresh(patience=ROTATION_PATIENCE_SECONDS)
        elif time.monotonic() - self._fetched > FRESH_SECONDS:
            self._refresh(patience=0)
        keys = self._keys  # a fetch may replace them at any moment
        if keys is None:
            raise Unavailable("The key server cannot be reached, so tokens can't be verified; please try again.")
        if (kid, algorithm) not in keys:
            raise Unauthorized("the token is signed with a key that the key server does not list")
        return keys[kid, algorithm]

    def _refresh(self, patience: float) -> None:
        """Start a fetch unless that was done a moment ago; wait for the one under way, until it is `patience` old."""
        with self._lock:
            now = time.monotonic()
            # Never two at a time: a server that trickles its headers can hold a fetch beyond all timeouts.
            if now - self._tried >= COOL_DOWN_SECONDS and not self._fetch.is_alive():
                self._tried = now
                self._fetch = threading.Thread(target=self._replace_keys, daemon=True)
                self._fetch.start()
            under_way, left = self._fetch, self._tried + patience - now
        if left > 0:
            under_way.join(left)

    def _replace_keys(self) -> None:
        try:
            with self.watch():
                self._keys = fetch(self.url)
            self._fetched = time.monotonic()
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            log.warning("the keys could not be fetched from the key server: %s", error)


def fetch(url: str) -> dict[tuple[str, str], Any]:
    """(kid, algorithm) -> public key. Raises OSError, HTTPException, ValueError when the answer is no list of keys."""
    answer = outgoing.get(url, {}, TIMEOUT_SECONDS)
    listed = answer.get("keys") if isinstance(answer, dict) else None
    keys = dict(filter(None, map(public_key, listed if isinstance(listed, list) else [])))
    if not keys:
        raise ValueError("the answer holds no key that can be used")
    return keys


def public_key(jwk: Any) -> tuple[tuple[str, str], Any] | None:
    """A JSON Web Key as ((kid, algorithm), key); None for one that can't or mustn't be used here.

    Mustn't: a key whose private half was published along with it, and RSA below 2048 bits (RFC 7518, section 3.3).
    """
    try:
        key = jwt.PyJWK.from_dict(jwk)
        unfit = "d" in jwk or key.Algorithm.check_key_length(key.key)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, NotImplementedError):
        return None
    if unfit or not isinstance(key.key_id, str) or key.algorithm_name not in ASYMMETRIC:
        return None
    return (key.key_id, key.algorithm_name), key.key

"""Better Auth's session tokens, which say nothing by themselves: Better Auth is asked whose they are.

Only with `BETTER_AUTH_SESSIONS=on`, and never for what looks like a JWT. Anybody can send tokens that are none, so few
questions are asked, one after the other, and few requests wait for them; JWTs need none of it and go on. What is known
is remembered by `authenticator.py`, for `REMEMBER_SECONDS`: so long a session may still be taken after its end.
"""

import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, unquote

from ...errors import Unauthorized, Unavailable
from ..rate_limit import Windows
from . import outgoing

log = logging.getLogger(__name__)

REMEMBER_SECONDS = 60
TIMEOUT_SECONDS = 2
# After a failure Better Auth is left alone this long.
PAUSE_SECONDS = 3
# So many questions a process asks in a second.
QUESTIONS = 20
# A token, and perhaps its signature, as the cookie has it (percent-encoded) or decoded.
SESSION_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,128}(\.[A-Za-z0-9+/=_-]{20,200})?", flags=re.ASCII)
COOKIES = ("better-auth.session_token", "__Secure-better-auth.session_token")

UNKNOWN = "Better Auth knows no session with this token, or it is over; sign in again"
BUSY = "Session tokens can't be verified at the moment; please try again."


class SessionServer:
    """Asks the `get-session` at `url`, each time in a `watch`; so many `threads` the process has.

    Safe to call from many threads.
    """

    watch: Callable[[], AbstractContextManager[object]] = nullcontext

    def __init__(self, url: str, threads: int) -> None:
        self.url = url
        self._room = threading.BoundedSemaphore(max(1, threads // 4))
        self._turn = threading.Lock()
        self._windows = Windows()
        self._unknown: dict[str, float] = {}
        self._rest_until = 0.0
        self._question = threading.Thread()

    def session(self, token: str, known: Callable[[str], Any]) -> tuple[dict[str, Any], float] | None:
        """The session (with its `user`) of a token, and when it ends; None if meanwhile it is `known`.

        Raises Unauthorized, or Unavailable when Better Auth does not answer or too many ask.
        """
        decoded = unquote(token)
        if not SESSION_TOKEN.fullmatch(decoded):
            raise Unauthorized("the token is malformed: it is neither a JWT nor a session token")
        if not self._room.acquire(blocking=False):
            raise Unavailable(BUSY)
        try:
            with self._turn:
                return None if known(token) else self._ask(decoded)
        finally:
            self._room.release()

    def _ask(self, token: str) -> tuple[dict[str, Any], float]:
        now = time.monotonic()
        if self._unknown.get(token, 0) > now:
            raise Unauthorized(UNKNOWN)
        if now < self._rest_until or self._question.is_alive() or self._windows.hit("questions", 1)[0] > QUESTIONS:
            raise Unavailable(BUSY)
        answers: list[Any] = []
        # In a thread of its own, because a server that trickles its answer could hold this one.
        self._question = threading.Thread(target=self._fetch, args=(token, answers), daemon=True)
        self._question.start()
        self._question.join(TIMEOUT_SECONDS)
        if not answers:
            self._rest_until = time.monotonic() + PAUSE_SECONDS
            raise Unavailable("Better Auth can't be reached, so session tokens can't be verified; please try again.")
        session = answers[0]
        if session is None:
            self._unknown = {name: until for name, until in self._unknown.items() if until > now}
            self._unknown[token] = now + REMEMBER_SECONDS
            raise Unauthorized(UNKNOWN)
        return session, min(end_of(session), time.time() + REMEMBER_SECONDS)

    def _fetch(self, token: str, answers: list[Any]) -> None:
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        if "." in token:
            # With its signature it is what the cookie holds, which Better Auth takes without its bearer plugin.
            headers["Cookie"] = "; ".join(f"{name}={quote(token, safe='')}" for name in COOKIES)
        try:
            with self.watch():
                session = outgoing.get(self.url, headers, TIMEOUT_SECONDS)
                if session is not None:
                    end_of(session)
            answers.append(session)
        except (OSError, HTTPException, ValueError, TypeError, KeyError, RecursionError) as error:
            log.warning("Better Auth could not be asked for a session: %s", error)


def looks_like_one(token: str) -> bool:
    """Whether it may be a session token: JWTs have two dots, and encrypted ones four (RFC 7515, 7516)."""
    return token.count(".") < 2


def end_of(session: dict[str, Any]) -> float:
    """When it ends, in seconds since 1970. Raises KeyError, TypeError, ValueError for what is no session."""
    return datetime.fromisoformat(session["session"]["expiresAt"]).timestamp()

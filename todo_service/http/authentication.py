"""Who asks: each view that needs a user passes through `bearer`, which gives it a session of the token's owner.

What a token is, and whether it is good, is left to `tokens/`.
"""

import functools
import re
from collections.abc import Callable
from contextlib import nullcontext
from typing import Concatenate, ParamSpec, TypeVar

from flask import current_app

from ..db.engine import ConnectionLost
from ..db.session import Session
from ..errors import Forbidden, InvalidRequest, Missing, Unauthorized
from ..tasks.queries import explained
from . import rate_limit
from .cookie import cookie_token
from .current import current_g, current_request
from .gate import Gate
from .tokens.authenticator import Authenticator

P = ParamSpec("P")
R = TypeVar("R")


def bearer_token(header: str | None) -> str:
    """The token in an Authorization header (RFC 6750, section 2.1). Raises Unauthorized, InvalidRequest."""
    scheme, _, rest = (header or "").partition(" ")
    if scheme.lower() != "bearer":
        raise Unauthorized
    if not re.fullmatch(r"\s*\S+\s*", rest):
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_request"'}
        raise InvalidRequest("The Authorization header must be `Bearer` and one token.", headers=challenge)
    return rest.strip()


def bearer(view: Callable[Concatenate[Session, P], R]) -> Callable[P, R]:
    """Let a view be called only with a valid token; it gets a session of the token's user as its first argument."""

    @functools.wraps(view)
    def authenticated(*args: P.args, **kwargs: P.kwargs) -> R:
        asked, known, extensions = current_request(), current_g(), current_app.extensions
        authenticator: Authenticator = extensions["authenticator"]
        try:
            header = asked.environ.get("HTTP_AUTHORIZATION")
            token = cookie_token() if header is None else None
            owner = authenticator.owner(token or bearer_token(header))
        except (InvalidRequest, Unauthorized):
            rate_limit.count_stranger()
            raise
        # For the line in the log, whatever becomes of the request.
        known.owner = owner
        rate_limit.count_user(owner)
        if known.get("path_user", owner) != owner:
            raise Forbidden("This address belongs to another user than your token.")
        reads = asked.method in ("GET", "HEAD")
        gate: Gate = extensions["gate"]
        with nullcontext() if reads else gate.enter(owner), Session(extensions["engine"], owner) as session:
            run = functools.partial(view, session, *args, **kwargs)
            # Of one task (kwargs: its id), the primary is asked in any case.
            if reads and not kwargs and (replica := extensions["replica"]):
                run = functools.partial(replica.read, session, view)
            try:
                return retried(run, session, again=reads)
            except Missing as missing:
                session.rollback()
                raise explained(session, missing) from None

    return authenticated


def retried(view: Callable[[], R], session: Session, again: bool) -> R:
    """What `view` returns; `again`: it changes nothing, so it's tried once more when the connection broke."""
    try:
        return view()
    except ConnectionLost:
        if not again:
            raise
        session.rollback()
        return view()

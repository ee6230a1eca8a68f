"""A POST that is repeated with its Idempotency-Key is answered as the first time, and done once.

After draft-ietf-httpapi-idempotency-key-header: the key is kept, per user, in the transaction of the change, with a
fingerprint of the request and the answer to it. So both are there or neither is, whenever the process is killed. While
the first request is still running, another one with its key gets 409; errors are not kept, as nothing was changed.
"""

import functools
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Concatenate, ParamSpec

from flask import Response, request
from sqlalchemy import Row, Text, bindparam, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert as upsert

from ..db.diagnosis import CLAIMED
from ..db.models import ANSWER_HOURS, answers
from ..db.session import Session
from ..errors import Invalid
from ..tasks.queries import OWNER
from .current import current_request

P = ParamSpec("P")
View = Callable[Concatenate[Session, P], Response]

HEADER = "Idempotency-Key"
MAX_KEY = 255
KEPT_HEADERS = ("Content-Type", "ETag", "Location")

KEY = bindparam("key", type_=Text)
FRESH = answers.c.created_at > func.now() - literal_column(f"interval '{ANSWER_HOURS} hours'")
# In front of FIND, which so sees the database as it is when the lock is held, with what its last holder did; without
# the lock the message ends here. With the key claimed, a file may be read before the next message comes: that may take
# longer than `session.PAUSE`.
CLAIM = (
    f"DO 'BEGIN IF NOT pg_try_advisory_xact_lock({{number}}) THEN RAISE SQLSTATE ''{CLAIMED}''; END IF; END'; "
    "SELECT set_config('idle_in_transaction_session_timeout', '300s', true); "
)
FIND = select(answers.c.fingerprint, answers.c.status, answers.c.headers, answers.c.body).where(
    answers.c.user_id == OWNER, answers.c.key == KEY, FRESH
)


def _keep() -> Any:
    statement = upsert(answers)
    again = ("fingerprint", "status", "headers", "body", "created_at")
    return statement.on_conflict_do_update(
        index_elements=["user_id", "key"], set_={name: statement.excluded[name] for name in again}
    )


KEEP = _keep()


def idempotent(view: View[P]) -> View[P]:
    """Answer a request with an Idempotency-Key once; one without is none of this module's business."""

    @functools.wraps(view)
    def once(session: Session, /, *args: P.args, **kwargs: P.kwargs) -> Response:
        asked = current_request()
        key = asked.headers.get(HEADER) if asked.method == "POST" else None
        if key is None:
            return view(session, *args, **kwargs)
        if not 1 <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
            raise Invalid([(HEADER, f"Must have 1 to {MAX_KEY} printable ASCII characters.")])
        with session.transaction():
            claim = CLAIM.format(number=_number(session.owner, key))
            values, options = {"owner": session.owner, "key": key}, {"first": claim}
            if kept := session.execute(FIND, values, execution_options=options).one_or_none():
                return _replay(_fingerprint(session.owner), kept)
            response = view(session, *args, **kwargs)
            _remember(session, key, response)
            return response

    return once


def _remember(session: Session, key: str, response: Response) -> None:
    values = {
        "user_id": session.owner,
        "key": key,
        "fingerprint": _fingerprint(session.owner),
        "status": response.status_code,
        "headers": {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers},
        "body": response.get_data(),
        "created_at": datetime.now(UTC),
    }
    session.execute(KEEP, values)


def _replay(fingerprint: bytes, kept: Row[*tuple[Any, ...]]) -> Response:
    if bytes(kept.fingerprint) != fingerprint:
        raise Invalid([(HEADER, "This key was used for another request; take a new one for each.")])
    return Response(bytes(kept.body), kept.status, kept.headers | {"Idempotency-Replayed": "true"})


def _fingerprint(owner: str) -> bytes:
    """What makes two requests the same: address (in either family), parameters and body."""
    path = request.path.rstrip("/").replace(f"/api/{owner}/", "/api/", 1)
    digest = hashlib.sha256(f"{request.method} {path}?{request.query_string.decode('latin-1')}\n".encode())
    digest.update(request.get_data())
    return digest.digest()


def _number(owner: str, key: str) -> int:
    """The number of the key's lock; two keys that get the same one only wait for each other."""
    digest = hashlib.blake2b(f"{len(owner)} {owner} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)

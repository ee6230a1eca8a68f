"""A POST that is repeated with its Idempotency-Key is answered as the first time, and done once.

After draft-ietf-httpapi-idempotency-key-header: the key is kept, per user, in the transaction of the change, with a
fingerprint of the request and the answer to it. So both are there or neither is, whenever the process is killed. While
the first request is still running, another one with its key gets 409; errors are not kept, as nothing was changed.
"""

import functools
import hashlib
from collections.abc import Awaitable, Callable
from typing import Concatenate, ParamSpec

import orjson
from flask import Response, request
from sqlalchemy import BigInteger, Boolean, Text, bindparam, cast, func, literal_column, select, true
from sqlalchemy.dialects.postgresql import insert as upsert

from .db import database
from .errors import Conflict, Invalid
from .models import ANSWER_HOURS, answers
from .queries import OWNER
from .statements import Query

P = ParamSpec("P")
View = Callable[Concatenate[str, P], Awaitable[Response]]

HEADER = "Idempotency-Key"
MAX_KEY = 255
KEPT_HEADERS = ("Content-Type", "ETag", "Location")

KEY = bindparam("key", type_=Text)
FRESH = answers.c.created_at > func.now() - literal_column(f"interval '{ANSWER_HOURS} hours'")
# With the key claimed, a file may be read before the next message comes: longer than `db.PAUSE`.
PAUSE = func.set_config("idle_in_transaction_session_timeout", "300s", true())
# Two statements: the second sees the database as it is when the lock is held, with what its last holder did.
LOCK = select(
    func.set_config(
        "app.locked", cast(func.pg_try_advisory_xact_lock(bindparam("lock", type_=BigInteger)), Text), true()
    ),
    PAUSE,
)
FIND = select(
    cast(func.current_setting("app.locked"), Boolean),
    answers.c.fingerprint,
    answers.c.status,
    answers.c.headers,
    answers.c.body,
).select_from(
    select(literal_column("1"))
    .subquery("one")
    .outerjoin(answers, (answers.c.user_id == OWNER) & (answers.c.key == KEY) & FRESH)
)
CLAIM = Query(LOCK, FIND)


def _keep() -> Query:
    values = {
        column.name: bindparam(column.name, type_=column.type) for column in answers.c if column.name != "created_at"
    }
    statement = upsert(answers).values(values | {"user_id": OWNER})
    again = {name: statement.excluded[name] for name in ("fingerprint", "status", "headers", "body")}
    return Query(
        statement.on_conflict_do_update(index_elements=["user_id", "key"], set_=again | {"created_at": func.now()})
    )


KEEP = _keep()


def idempotent(view: View[P]) -> View[P]:
    """Answer a request with an Idempotency-Key once; one without is none of this module's business."""

    @functools.wraps(view)
    async def once(owner: str, /, *args: P.args, **kwargs: P.kwargs) -> Response:
        key = request.headers.get(HEADER)
        if key is None:
            return await view(owner, *args, **kwargs)
        if not 1 <= len(key) <= MAX_KEY or not key.isascii() or not key.isprintable():
            raise Invalid([(HEADER, f"Must have 1 to {MAX_KEY} printable ASCII characters.")])
        db, fingerprint = database(), _fingerprint(owner)
        with db.transaction():
            [(locked, *kept)] = db.read(owner, CLAIM, key=key, lock=_number(owner, key))
            if not locked:
                raise Conflict("A request with this Idempotency-Key is still running; please try again in a moment.")
            if kept[1] is not None:
                return _replay(fingerprint, *kept)
            response = await view(owner, *args, **kwargs)
            headers = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
            values = dict(fingerprint=fingerprint, status=response.status_code, body=response.get_data())
            db.write(owner, KEEP, key=key, headers=orjson.dumps(headers).decode(), **values)
            return response

    return once


def _replay(fingerprint: bytes, first: bytes, status: int, headers: dict[str, str], body: bytes) -> Response:
    if bytes(first) != fingerprint:
        raise Invalid([(HEADER, "This key was used for another request; take a new one for each.")])
    return Response(bytes(body), status, headers | {"Idempotency-Replayed": "true"})


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

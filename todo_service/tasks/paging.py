"""Keyset paging: a page starts behind the last row of the one before, so every page costs the same.

A cursor holds the sort key and the id of that row, and a mark of the list it belongs to, so that one from another list
or another user is found out. It is no secret and needs no signature: the owner filter does not depend on it, so a
forged cursor can only choose where in their own tasks its maker starts.
"""

import base64
import hashlib
import math
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import orjson

from ..errors import Invalid

Key = str | int | float | datetime | None
# No task has an earlier time.
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """A row's place in a list: its sort key (None: it has none, and stands in the last part) and its id."""

    key: Key
    id: str


def encode(listing: str, place: Place) -> str:
    """An opaque cursor that continues `listing` (owner, order and filters in words) behind `place`."""
    data = orjson.dumps([_mark(listing), *place], option=orjson.OPT_NAIVE_UTC)
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(listing: str, kind: type, cursor: str, name: str = "cursor") -> Place:
    """The place in `cursor`, its key of type `kind`. Raises Invalid when broken or from another list."""
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        mark, key, id = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        place = Place(_key(kind, key), str(uuid.UUID(id)))
    except (ValueError, TypeError, AttributeError):
        mark, place = None, Place(None, "")
    if mark != _mark(listing):
        raise Invalid([(name, "Not from this list; start again without one.")])
    return place


def _key(kind: type, value: Any) -> Key:
    """`value` as a key of type `kind`, if it is one that the database could have held. Raises ValueError, TypeError."""
    key: Key = value
    if key is None:
        return None
    if kind is datetime:
        key = datetime.fromisoformat(value)
        known = key.utcoffset() == timedelta(0) and key >= EPOCH
    elif isinstance(key, str):
        known = kind is str and "\0" not in key
    elif isinstance(key, float):
        known = kind is float and math.isfinite(key)
    else:
        known = kind is int and type(key) is int and 0 <= key < 1 << 63
    if not known:
        raise ValueError(value)
    return key


def _mark(listing: str) -> str:
    return hashlib.blake2b(listing.encode(), digest_size=6).hexdigest()

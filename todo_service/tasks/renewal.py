"""What ends when the database is put back to an earlier state: the entity tags and sync tokens given out since.

They hold a part of their owner's row that nobody can guess; each owner gets another one.
"""

import secrets
from collections.abc import Callable
from typing import Any

from sqlalchemy import Select, Text, bindparam, func, literal_column, select, update

from ..db.models import BYTES, owners
from ..db.session import Session
from .statements import ONE

OWNERS_A_STEP = 1000

AFTER, LAST = bindparam("after", type_=BYTES), bindparam("last", type_=BYTES)


def _next() -> Select[*tuple[Any, ...]]:
    """The last of the next owners after `after`, by their ids; null without any."""
    some = select(owners.c.user_id).where(owners.c.user_id > AFTER).order_by(owners.c.user_id).limit(OWNERS_A_STEP)
    return select(func.max(some.subquery("some").c.user_id))


def _renew() -> Select[*tuple[Any, ...]]:
    """Another nonce for the owners after `after` up to `last`, made of the old one and of `secret`; how many.

    Not by a random function, which would have to be the same on each node of a database that has several.
    """
    digest = func.sha256(func.decode(owners.c.nonce + bindparam("secret", type_=Text), literal_column("'hex'")))
    nonce = func.substr(func.encode(digest, literal_column("'hex'")), ONE, literal_column("12"))
    those = update(owners).where(owners.c.user_id > AFTER, owners.c.user_id <= LAST)
    renewed = those.values(nonce=nonce).returning(ONE).cte("renewed")
    return select(func.count()).select_from(renewed)


NEXT, RENEW = _next(), _renew()


def renew(session: Session, done: Callable[[int], object] = lambda _: None) -> int:
    """Give every owner another nonce: how many; `done` is told of each step. Safe to repeat."""
    after, total, secret = "", 0, secrets.token_hex(32)
    while last := session.execute(NEXT, {"after": after}).scalar_one():
        step = session.execute(RENEW, {"after": after, "last": last, "secret": secret}).scalar_one()
        done(step)
        after, total = last, total + step
    return total

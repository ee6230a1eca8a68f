"""A read replica (DATABASE_READ_URL), which is asked for a user's rows once it has that user's newest change.

Which one that is, is asked of the primary first: a row by its key, whoever has made the change, and wherever. So users
see at once what they have done, and what is much to read is read elsewhere. Where the replica is behind, doesn't answer
or gives up, the primary serves, and the replica is left alone for a moment. It is worth the two questions for lists,
counts, changes and exports; one task is read as fast as its owner's row, so those reads stay where they are.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Engine, Row, bindparam, select
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ..errors import DatabaseUnavailable
from .models import BYTES, owners
from .session import Session

log = logging.getLogger(__name__)

R = TypeVar("R")

# How long a replica that has failed is not asked, in seconds; then one request tries it, and the others go on without.
PAUSE = 10

NEWEST = select(owners.c.revision, owners.c.nonce).where(owners.c.user_id == bindparam("owner", type_=BYTES))


class Replica:
    """The one behind `engine`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # When it is asked again; 0 while it answers.
        self._ask_at = 0.0

    def read(self, session: Session, view: Callable[[Session], R]) -> R:
        """What `view` returns, of a session on the replica if that will do, else of `session`, which is the primary's.

        May be called a second time, so it changes nothing.
        """
        if self._ask_at and not self._may_try():
            return view(session)
        newest = _newest(session)
        # The connection goes back: what follows may take long.
        session.rollback()
        if newest:
            try:
                # In one transaction, which is of one moment even where a pooler has several replicas.
                with Session(self.engine, session.owner) as there, there.transaction(snapshot=True):
                    found = _newest(there)
                    self._ask_at = 0.0
                    if _has(newest, found):
                        return view(there)
            except (DatabaseUnavailable, PoolTimeout) as error:
                self._ask_at = time.monotonic() + PAUSE
                log.warning("the replica is not asked for %s s: %s", PAUSE, getattr(error, "reason", None) or error)
        return view(session)

    def _may_try(self) -> bool:
        now = time.monotonic()
        if now < self._ask_at:
            return False
        self._ask_at = now + PAUSE
        return True


def _newest(session: Session) -> Row[*tuple[Any, ...]] | None:
    """Up to which change the session's database has those of its owner, and the owner's nonce; None: it has nothing."""
    return session.execute(NEWEST, {"owner": session.owner}).one_or_none()


def _has(newest: Row[*tuple[Any, ...]], found: Row[*tuple[Any, ...]] | None) -> bool:
    return found is not None and found.revision >= newest.revision and found.nonce == newest.nonce

"""The database: a pool of connections, and whose rows a statement may see.

Each statement goes out in one message together with the owner it runs for: `SET LOCAL ROLE`, `SET LOCAL app.user_id`,
the statement. PostgreSQL runs such a message as one transaction, so it costs one round trip, is committed when the
answer is there, and leaves nothing behind on the connection (which may be PgBouncer's, shared by others). The role has
no rights but on the service's tables, and row-level security shows it the rows of `app.user_id` alone: a query that
forgot its owner filter finds nothing foreign. What must see all rows says so by name (`unscoped`).

What the statements say is left to `queries.py` and `mutations.py`.
"""

import functools
import logging
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, TypeVar, cast

import psycopg2
from flask import current_app
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from . import embedded
from .config import Settings
from .deadlines import missed, within
from .diagnosis import refusal, sentence, unreachable
from .errors import Unavailable, busy
from .lead import lead
from .models import ROLE
from .statements import Prepared, Query
from .turns import Change, Make, Turns

log = logging.getLogger(__name__)

Row = tuple[Any, ...]
T = TypeVar("T")

# Deadlines in seconds; each lies inside the next: a lock, a statement, its answer (or a free connection). A serverless
# database may need several seconds to wake up, so connecting takes longer.
LOCK, STATEMENT, ANSWER, CHECKOUT, CONNECT = 2, 3, 4, 4, 10
# How long PostgreSQL keeps a transaction, and its locks, that has no next message: a machine can vanish without a word,
# and its connection would live on for hours.
PAUSE = 10
# A connection that lay idle this long may have been closed by the other side: it is tried before it is used.
IDLE = 30

# One plan for all owners: what is planned anew for each, takes longer to plan than to run (`statements.py`).
SETTINGS = (
    f"SET LOCAL statement_timeout = {STATEMENT * 1000}; SET LOCAL lock_timeout = {LOCK * 1000}; "
    "SET LOCAL plan_cache_mode = force_generic_plan; "
)
SCOPED = f"SET LOCAL ROLE {ROLE}; {SETTINGS}SET LOCAL app.user_id = %(owner)s; "
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
UNSCOPED = f"SET LOCAL ROLE NONE; {SETTINGS}"


class Database:
    """One process's way to PostgreSQL. Raises Unavailable for whatever a client may simply try again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._thread = threading.local()
        self.turns = Turns(self)
        self.pool = QueuePool(
            self._connect,
            pool_size=settings.pool_size,
            max_overflow=0,
            timeout=CHECKOUT,
            reset_on_return=None,
            # Few that are busy know their statements better than many that are not.
            use_lifo=True,
        )
        event.listen(self.pool, "checkin", _note_idle)
        event.listen(self.pool, "checkout", self._try_if_in_doubt)
        self._lost_at = 0.0

    @functools.cached_property
    def url(self) -> str:
        """Where the database is; without a configured one, the bundled PostgreSQL is started now."""
        if self._settings.database_url:
            return self._settings.database_url
        try:
            return embedded.start().url
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            raise unreachable(error, "See `log` in its folder, instance/postgresql.") from None

    def _connect(self) -> DBAPIConnection:
        with within(CONNECT):
            connection = psycopg2.connect(self.url, client_encoding="utf8", application_name="todo_service")
        # One message is one transaction: nothing here ever leaves a transaction open between two messages.
        connection.autocommit = True
        return cast(DBAPIConnection, connection)

    def read(self, owner: str, query: Query, **values: Any) -> list[Row]:
        """Rows that `owner` may see. Tried again when the connection turns out to be dead: a read changes nothing."""
        values["owner"] = owner
        try:
            return self._run(SCOPED, query, values)
        except ConnectionLost:
            return self._run(SCOPED, query, values)

    def write(self, owner: str, query: Query, **values: Any) -> list[Row]:
        """Change `owner`'s rows; what the statement returns. Committed when this returns, not repeated if it fails."""
        values["owner"] = owner
        return self._run(SCOPED, query, values)

    def unscoped(self, query: Query, **values: Any) -> list[Row]:
        """Run a statement that is meant to see every user's rows, with the rights of the connection's own role."""
        return self._run(UNSCOPED, query, values)

    @property
    def _transaction(self) -> "_Transaction | None":
        """That which this thread is in."""
        return getattr(self._thread, "transaction", None)

    async def in_turn(self, owner: str, change: Any, make: Make) -> Any:
        """What came of `change` of `owner`'s, made by `make` together with others of theirs that meet it (`turns.py`).

        Inside of a transaction it is a part of that, meets none and doesn't wait.
        """
        if not self._transaction:
            return await Change(self.turns, owner, change, make)
        return make(self, owner, [change])[0]

    def read_at_once(self, read: Callable[[], T]) -> T:
        """What `read` makes of all that it reads, of one moment. Tried again as in `read`; nothing may be changed."""
        try:
            with self.transaction(begin=SNAPSHOT):
                return read()
        except ConnectionLost:
            with self.transaction(begin=SNAPSHOT):
                return read()

    @contextmanager
    def transaction(self, repeatable: bool = False, begin: str = "BEGIN") -> Iterator[None]:
        """What this thread reads and writes inside is one transaction: all of it, or nothing after an exception.

        Inside of another one it is a part of that, whose end decides. `repeatable`: it may fail with NotPrepared.
        """
        if self._transaction:
            yield
            return
        with self._connection() as connection:
            self._thread.transaction = _Transaction(connection, repeatable, begin)
            try:
                yield
                self._thread.transaction.end("COMMIT")
            except BaseException:
                self._thread.transaction.end("ROLLBACK")
                raise
            finally:
                self._thread.transaction = None

    def _run(self, prefix: str, query: Query, values: dict[str, Any]) -> list[Row]:
        if transaction := self._transaction:
            return transaction.run(prefix, query, values)
        with self._connection() as connection:
            rows: list[Row] = _prepared(connection).send(
                query, lambda text: _execute(connection, prefix + text, values)
            )
            return rows

    @contextmanager
    def _connection(self) -> Iterator[PoolProxiedConnection]:
        if not self.pool.checkedin():
            lead.give_up()
        try:
            connection = self.pool.connect()
        except PoolTimeout:
            raise busy() from None
        except psycopg2.OperationalError as error:
            raise unreachable(error) from None
        try:
            yield connection
        except psycopg2.Error as error:
            if problem := refusal(error):
                raise problem from None
            if not isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
                raise
            log.warning("connection lost: %s", sentence(error))
            connection.invalidate()
            if missed():
                raise Unavailable("The database did not answer in time; please try again.") from None
            self._lost_at = time.monotonic()
            raise ConnectionLost("The connection to the database was lost; please try again.") from None
        finally:
            connection.close()

    def _try_if_in_doubt(self, connection: Any, record: Any, _proxy: Any) -> None:
        """Try what has been idle for long, or since another connection was lost, which seldom happens to one alone.

        A dead connection makes the pool open a new one (DisconnectionError), so the request never notices.
        """
        idle_since = record.info.get("idle_since", time.monotonic())
        if idle_since > self._lost_at and time.monotonic() - idle_since < IDLE:
            return
        try:
            with connection.cursor() as cursor, within(ANSWER):
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            raise DisconnectionError("the connection died while it was idle") from None


class _Transaction:
    """A transaction on `connection`; it begins in the message of its first statement."""

    def __init__(self, connection: PoolProxiedConnection, repeatable: bool, begin: str) -> None:
        self._connection, self._repeatable, self._begin = connection, repeatable, begin
        self._begun = False
        self._scope: tuple[str, Any] | None = None

    def run(self, prefix: str, query: Query, values: dict[str, Any]) -> list[Row]:
        scope = prefix, values.get("owner")
        start = "" if self._begun else f"{self._begin}; "
        # With each message, as a statement may have asked for a longer pause behind itself (`idempotency.py`).
        start += f"SET LOCAL idle_in_transaction_session_timeout = {int(PAUSE * 1000)}; "
        # Whatever else is set stays until the end.
        start += "" if scope == self._scope else prefix
        self._begun, self._scope = True, scope
        if not self._repeatable:
            return _execute(self._connection, start + query.sql, values)
        rows: list[Row] = _prepared(self._connection).send_known(
            query, lambda text: _execute(self._connection, start + text, values)
        )
        return rows

    def end(self, how: str) -> None:
        if self._begun:
            self._begun = False
            _execute(self._connection, how)


class ConnectionLost(Unavailable):
    """The connection broke while a statement was under way: a change may or may not have been made."""


def _prepared(connection: PoolProxiedConnection) -> Prepared:
    prepared: Prepared = connection.info.setdefault("prepared", Prepared())
    return prepared


def _execute(connection: PoolProxiedConnection, sql: str, values: dict[str, Any] | None = None) -> list[Row]:
    with closing(connection.cursor()) as cursor, within(ANSWER):
        cursor.execute(sql, values)
        return list(cursor.fetchall()) if cursor.description else []


def database() -> Database:
    """The database of the app that is handling the current request."""
    db: Database = current_app.extensions["database"]
    return db


def _note_idle(_connection: Any, record: Any) -> None:
    record.info["idle_since"] = time.monotonic()

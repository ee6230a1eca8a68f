"""Whose rows a statement may see. Both walls between users stand here; a security engineer reads this module first.

A request has one `Session`, of one owner. What it executes meets two walls:

1. Every statement on a user's rows begins its conditions with `user_id = :owner`, and gets `session.owner` for that.
2. PostgreSQL shows and takes no other rows: each statement goes out in one message together with the owner it runs for,
   `SET LOCAL ROLE`, `SET LOCAL app.user_id`, the statement. The role has no rights but on the service's tables, and
   row-level security lets it at the rows of `app.user_id` alone: a query that forgot its filter finds nothing foreign.

The engine is in AUTOCOMMIT, so PostgreSQL runs such a message as one transaction: it costs one round trip, is committed
when the answer is there, and leaves nothing behind on the connection (which may be PgBouncer's, shared by others).
Statements that belong together run in `with session.transaction():`, which sends its BEGIN in front of the first one.

A database of several nodes (Citus) hands a message that holds a SET to all of them, whole. There, what stands in front
of a statement is a message of its own, and one that stands alone is three: BEGIN with its scope, the statement, COMMIT.

A session without an owner sees nothing. What must see all rows (the purge, health) says so by name: `unscoped`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg2
from psycopg2 import extensions
from sqlalchemy import Connection as CoreConnection
from sqlalchemy import Engine, event, orm
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPICursor, ExecutionContext
from sqlalchemy.orm import SessionTransaction, SessionTransactionOrigin

from .models import ROLE

# Deadlines in seconds; each lies inside the next: a lock, a statement, its answer.
LOCK, STATEMENT, ANSWER = 2, 3, 4
# How long PostgreSQL keeps a transaction, and its locks, that has no next message: a machine can vanish without a word,
# and its connection would live on for hours.
PAUSE = 10

SETTINGS = f"SET LOCAL statement_timeout = {STATEMENT * 1000}; SET LOCAL lock_timeout = {LOCK * 1000}; "
SCOPED = f"SET LOCAL ROLE {ROLE}; {SETTINGS}SET LOCAL app.user_id = %(app_user_id)s; "
UNSCOPED = f"SET LOCAL ROLE NONE; {SETTINGS}"
KEEP = f"SET LOCAL idle_in_transaction_session_timeout = {PAUSE * 1000}; "
# The same without a SET.
KEEP_HERE = f"SELECT set_config('idle_in_transaction_session_timeout', '{PAUSE}s', true); "
# What a change's message begins with (the execution option `first`): the owner's row made, if need be, and locked.
LOCK_OWNER = "SELECT FROM owners WHERE user_id = %(app_user_id)s FOR UPDATE; "
MAKE_OWNER = f"INSERT INTO owners (user_id) VALUES (%(app_user_id)s) ON CONFLICT DO NOTHING; {LOCK_OWNER}"  # noqa: S608
BEGIN, BEGIN_SNAPSHOT = "BEGIN; ", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; "


class Connection(extensions.connection):
    """psycopg2's connection in autocommit, on which SQLAlchemy's commit ends what `send_scope` has begun.

    psycopg2's own BEGIN would be a round trip more, and its switch out of autocommit a state that poolers lose.
    """

    answer_seconds = ANSWER
    # Which statements it has sent how often (`prepared.py`).
    prepared: dict[str, int] | None
    # Whether the database has several nodes, as the first connection finds out (`engine.py`); and whether the
    # transaction that is under way there is that of a statement which stands alone.
    distributed, alone = False, False
    # Of the session that has it at the moment: its scope, and what its transaction begins with. Of nobody: no rows.
    owner, unscoped, begin = "", False, ""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.prepared = {}

    @property
    def in_transaction(self) -> bool:
        """Whether PostgreSQL says so, whatever has begun or ended it; costs no round trip."""
        return self.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE

    def commit(self) -> None:
        self._end("COMMIT")

    def rollback(self) -> None:
        self._end("ROLLBACK")

    def _end(self, how: str) -> None:
        self.owner, self.unscoped, self.begin = "", False, ""
        self.finish(how)

    def finish(self, how: str) -> None:
        """End the transaction, if there is one, and nothing else."""
        self.alone = False
        if self.in_transaction:
            with self.cursor() as cursor:
                cursor.execute(how)
                if cursor.statusmessage != how:
                    raise RuntimeError("nothing was done, because a statement of the transaction had failed")


class Session(orm.Session):
    """SQLAlchemy's Session, of one owner. `unscoped`: of nobody, with the rights of the connection's own role."""

    def __init__(self, engine: Engine, owner: str = "", *, unscoped: bool = False) -> None:
        super().__init__(engine, autoflush=False)
        self.owner, self.unscoped = owner, unscoped

    @contextmanager
    def transaction(self, *, snapshot: bool = False) -> Iterator[None]:
        """All that is executed inside is done, or nothing after an exception; inside of another one, its end decides.

        `snapshot`: read only, and all of one moment.
        """
        current = self.get_transaction()
        if current and current.origin is SessionTransactionOrigin.BEGIN:
            yield
            return
        # What SQLAlchemy began by itself, PostgreSQL knows nothing of.
        self.rollback()
        with self.begin():
            if snapshot:
                self.connection(execution_options={"snapshot": True})
            yield


@event.listens_for(Session, "after_begin")
def take(session: Session, transaction: SessionTransaction, connection: CoreConnection) -> None:
    """Have a connection speak for this session until `_end`; `session.begin()` sends BEGIN with the first statement."""
    taken = connection.connection.dbapi_connection
    assert isinstance(taken, Connection)
    taken.owner, taken.unscoped = session.owner, session.unscoped
    if transaction.origin is SessionTransactionOrigin.BEGIN:
        taken.begin = BEGIN_SNAPSHOT if connection.get_execution_options().get("snapshot") else BEGIN


def send_scope(
    _: CoreConnection,
    cursor: DBAPICursor,
    statement: str,
    parameters: Any,
    context: ExecutionContext,
    executemany: bool,
) -> tuple[str, Any]:
    """Put in front of `statement` whose rows it may see (SQLAlchemy's event before_cursor_execute).

    And, behind that, what its execution option `first` says. PostgreSQL takes a snapshot for each statement of a
    message; so where that waits for a lock, `statement` sees the database as it is when the lock is held.
    """
    if executemany or ";" in statement:
        raise NotImplementedError("one statement at a time: what follows a COMMIT, or goes on its own, has no owner")
    options, connection = context.execution_options, cursor.connection
    assert isinstance(connection, Connection)
    values = {**(parameters or {}), "app_user_id": connection.owner}
    statement = options.get("first", "") + statement
    unscoped = options.get("unscoped", connection.unscoped)
    if connection.begin and unscoped != connection.unscoped:
        raise RuntimeError("a transaction has one scope")
    if connection.in_transaction:
        # One that has failed takes nothing but the return to a savepoint.
        failed = connection.get_transaction_status() == extensions.TRANSACTION_STATUS_INERROR
        return statement if failed else (KEEP_HERE if connection.distributed else KEEP) + statement, values
    scope = UNSCOPED if unscoped else SCOPED
    if connection.distributed:
        connection.alone = not connection.begin
        with connection.cursor() as other:
            other.execute((connection.begin or BEGIN) + KEEP + scope, values)
        return statement, values
    return (connection.begin + KEEP if connection.begin else "") + scope + statement, values


def commit_alone(_: CoreConnection, cursor: DBAPICursor, *_rest: Any) -> None:
    """Commit what `send_scope` has begun for one statement (SQLAlchemy's event after_cursor_execute)."""
    if cursor.connection.alone:
        cursor.connection.finish("COMMIT")


def undo_alone(failure: ExceptionContext) -> None:
    """Undo it, where that statement has failed (SQLAlchemy's event handle_error)."""
    cursor = failure.execution_context and failure.execution_context.cursor
    if cursor and cursor.connection.alone and not cursor.connection.closed:
        with suppress(psycopg2.Error):
            cursor.connection.finish("ROLLBACK")


def guard(engine: Engine) -> None:
    """Let no statement out of `engine` without its scope."""
    event.listen(engine, "before_cursor_execute", send_scope, retval=True)
    event.listen(engine, "after_cursor_execute", commit_alone)
    event.listen(engine, "handle_error", undo_alone)

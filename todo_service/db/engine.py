"""The way to PostgreSQL: SQLAlchemy's engine and pool, and what becomes of the driver's failures.

Whose rows a statement may see is left to `session.py`, how long an answer may take to `deadlines.py`.
"""

import functools
import logging
import subprocess
import time
from collections.abc import Callable
from typing import Any

import orjson
import psycopg2
from psycopg2 import extensions
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from ..config import Settings
from ..errors import DatabaseUnavailable
from . import embedded, prepared
from .deadlines import missed
from .diagnosis import CHECK, refusal, sentence, unreachable
from .distribution import EXTENSION
from .session import Connection, guard

log = logging.getLogger(__name__)

# How long a request waits for a free connection, in seconds.
CHECKOUT = 4
# A connection that lay idle this long may have been closed by the other side: it is tried before it is used.
IDLE = 30
# PostgreSQL's number for the type uuid.
UUID_OID = 2950


class ConnectionLost(DatabaseUnavailable):
    """The connection broke while a statement was under way: a change may or may not have been made."""


@functools.cache
def address(settings: Settings) -> str:
    """Where the database is; without a configured one, the bundled PostgreSQL is started now."""
    if settings.database_url:
        return settings.database_url
    try:
        return embedded.start().url
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        raise unreachable(error, "See `log` in its folder, instance/postgresql.") from None


def make_engine(settings: Settings, url: str | None = None) -> Engine:
    """An engine that connects with its first use: to the database, or to its replica at `url`."""
    setting = "DATABASE_READ_URL" if url else "DATABASE_URL"
    engine = create_engine(
        "postgresql+psycopg2://",
        creator=lambda: connect(url or address(settings)),
        isolation_level="AUTOCOMMIT",
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=CHECKOUT,
        # Few that are busy know their statements better than many that are not.
        pool_use_lifo=True,
        use_native_hstore=False,
        json_deserializer=orjson.loads,
        hide_parameters=True,
    )
    event.listen(engine, "connect", read_ids_as_text)
    event.listen(engine, "connect", look_for_nodes())
    event.listen(engine, "checkin", note_idle)
    event.listen(engine, "checkout", try_if_idle)
    event.listen(engine, "handle_error", lambda failure: translate(failure, setting))
    guard(engine)
    if settings.prepare_statements:
        prepared.use(engine)
    return engine


def connect(url: str) -> Connection:
    return psycopg2.connect(url, connection_factory=Connection, client_encoding="utf8", application_name="todo_service")


def read_ids_as_text(connection: Connection, _record: Any) -> None:
    """As the service passes them on; SQLAlchemy has the driver make an object of each, for itself to take apart."""
    extensions.register_type(extensions.new_type((UUID_OID,), "UUID", extensions.UNICODE), connection)


def look_for_nodes() -> Callable[[Connection, Any], None]:
    """What tells each new connection whether the database is one of several nodes: the first one asks, for all."""
    found: list[bool] = []

    def tell(connection: Connection, _record: Any) -> None:
        if not found:
            with connection.cursor() as cursor:
                cursor.execute(EXTENSION)
                found.append(cursor.rowcount > 0)
        if found[0]:
            connection.distributed = True

    return tell


def note_idle(_connection: Any, record: ConnectionPoolEntry) -> None:
    record.info["idle_since"] = time.monotonic()


def try_if_idle(connection: Connection, record: ConnectionPoolEntry, _proxy: Any) -> None:
    """A dead connection makes the pool open a new one (DisconnectionError), so the request never notices."""
    if time.monotonic() - record.info.get("idle_since", time.monotonic()) < IDLE:
        return
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except psycopg2.Error:
        raise DisconnectionError("the connection died while it was idle") from None


def translate(failure: ExceptionContext, setting: str) -> Exception | None:
    """What a failure of the driver means to the client; None for a bug, which stays what it is.

    `setting`: which one has the address.
    """
    error = failure.original_exception
    if not isinstance(error, psycopg2.Error):
        return None
    if failure.connection is None:
        return unreachable(error, CHECK.format(setting))
    if problem := refusal(error):
        return problem
    if not isinstance(error, psycopg2.OperationalError | psycopg2.InterfaceError):
        return None
    log.warning("connection lost: %s", sentence(error))
    failure.is_disconnect = True
    if missed():
        # The others of the pool may be well.
        failure.invalidate_pool_on_disconnect = False
        return DatabaseUnavailable("The database did not answer in time; please try again.")
    return ConnectionLost("The connection to the database was lost; please try again.")

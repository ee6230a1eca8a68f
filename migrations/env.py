"""How migrations run: each in a transaction of its own, one process at a time, and so that nobody waits for long.

Two replicas that start together apply each once: who migrates holds a lock. It belongs to a transaction, because
PgBouncer may give the next transaction another connection; and to one beside those of the migrations, so that these can
build an index `CONCURRENTLY`, which is done outside of any.

A table that is changed is locked, and whoever comes later waits behind the migration that waits for the lock. So that
gives up soon, and is tried again by who has called (`todo_service/cli/schema.py`).
"""

import time

import psycopg2
from alembic import context
from sqlalchemy import Connection, create_engine, event, pool, text

from todo_service.db.models import REVISION, SCHEMA_LOCK, Base

# The service gives a lock 2 s.
BRIEFLY = "SET LOCAL lock_timeout = '1s'"
PAUSE_SECONDS = 0.2


def run() -> None:
    attributes = context.config.attributes
    # The address is libpq's to read, as everywhere else: SQLAlchemy reads some in another way.
    engine = create_engine(
        "postgresql+psycopg2://", creator=lambda: psycopg2.connect(attributes["url"]), poolclass=pool.NullPool
    )
    with engine.connect() as turn, engine.connect() as connection:
        take(turn)
        event.listen(connection, "begin", lambda begun: begun.exec_driver_sql(BRIEFLY))
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            transaction_per_migration=True,
            on_version_apply=attributes.get("done"),
        )
        found = context.get_context().get_current_revision()
        # Of the first try.
        attributes.setdefault("found", found)
        # A newer one is left alone: its migrations are not known here, and this code works with what they made.
        if (found or "") < REVISION or attributes.get("back"):
            context.run_migrations()


def take(turn: Connection) -> None:
    """Wait until no other process migrates.

    Not in a statement: an index that is built concurrently waits for those that began before, so for this one.
    """
    while not turn.execute(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": SCHEMA_LOCK}).scalar():
        turn.rollback()
        time.sleep(PAUSE_SECONDS)
    turn.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


run()

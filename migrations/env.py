"""How migrations run: all in one transaction, under a lock, so that two replicas starting together apply them once.

The lock belongs to the transaction, because PgBouncer may give the next transaction another connection.
"""

import psycopg2
from alembic import context
from sqlalchemy import create_engine, pool, text

from todo_service.db.models import REVISION, Base

LOCK = 7_160_455_873_141  # any number that nothing else in the database uses


def run() -> None:
    url = context.config.attributes["url"]
    # The address is libpq's to read, as everywhere else: SQLAlchemy reads some in another way.
    engine = create_engine("postgresql+psycopg2://", creator=lambda: psycopg2.connect(url), poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata)
        found = context.get_context().get_current_revision()
        context.config.attributes["found"] = found
        # A newer one is left alone: its migrations are not known here, and this code works with what they made.
        if (found or "") < REVISION or context.config.attributes.get("back"):
            context.run_migrations()


run()

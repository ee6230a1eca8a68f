"""How migrations run: all in one transaction, under a lock, so that two replicas starting together apply them once.

The lock belongs to the transaction, because PgBouncer may give the next transaction another connection.
"""

from alembic import context
from sqlalchemy import create_engine, pool, text

from todo_service.models import metadata

LOCK = 7_160_455_873_141  # any number that nothing else in the database uses


def run() -> None:
    url = context.config.attributes["url"].replace("postgresql://", "postgresql+psycopg2://", 1)
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        context.configure(connection=connection, target_metadata=metadata)
        context.run_migrations()


run()

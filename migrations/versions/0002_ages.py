"""Indexes by age, for the purge: without them each of its steps reads all answers, and all tombstones."""

from alembic import op

revision = "0002"
down_revision = "0001"

INDEXES = {"answers_by_age": "answers (created_at)", "tombstones_by_age": "tombstones (purged_at)"}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, columns in INDEXES.items():
            # What a try that was cut off has left is not valid.
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")


def downgrade() -> None:
    op.execute("DROP INDEX answers_by_age, tombstones_by_age")

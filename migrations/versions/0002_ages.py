"""Indexes by age, for the purge: without them each of its steps reads all answers, and all tombstones."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("CREATE INDEX answers_by_age ON answers (created_at)")
    op.execute("CREATE INDEX tombstones_by_age ON tombstones (purged_at)")


def downgrade() -> None:
    op.execute("DROP INDEX answers_by_age, tombstones_by_age")

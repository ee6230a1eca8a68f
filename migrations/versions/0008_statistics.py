"""Have PostgreSQL plan for any user rather than for those it knows.

It keeps statistics of the users with the most tasks. Where these are nearly all that there are, it takes a new one for
somebody with a single task, and reads all of theirs for each task of a batch. Counts from the next ANALYZE on.
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.execute("ALTER TABLE tasks ALTER COLUMN user_id SET STATISTICS 1")


def downgrade() -> None:
    op.execute("ALTER TABLE tasks ALTER COLUMN user_id SET STATISTICS -1")

"""Give tasks a checklist."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # The default is not written to what is there, and the check not made for it.
    op.execute(
        "ALTER TABLE tasks ADD COLUMN checklist jsonb NOT NULL DEFAULT '[]', "
        "ADD CONSTRAINT tasks_checklist_count CHECK (jsonb_array_length(checklist) <= 50) NOT VALID"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE tasks DROP COLUMN checklist")

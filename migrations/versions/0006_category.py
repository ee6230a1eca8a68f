"""Give tasks a category."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # What is there has none, and needn't be read to know that it is of the right length.
    op.execute(
        "ALTER TABLE tasks ADD COLUMN category text, "
        "ADD CONSTRAINT tasks_category_length CHECK (char_length(category) BETWEEN 1 AND 50) NOT VALID"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE tasks DROP COLUMN category")

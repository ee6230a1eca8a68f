"""Give each owner a nonce, which makes their entity tags and sync tokens their own; another one for each there is."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.execute("ALTER TABLE owners ADD COLUMN nonce text NOT NULL DEFAULT substr(gen_random_uuid()::text, 25)")


def downgrade() -> None:
    op.drop_column("owners", "nonce")

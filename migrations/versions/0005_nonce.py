"""Give each owner a nonce, which makes their entity tags and sync tokens their own; another one for each there is."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

# Nobody waits for a thousand to be given theirs, and who is at work is left for later.
FILL = sa.text("""
    WITH step AS (
        SELECT user_id FROM owners WHERE user_id > :after ORDER BY user_id LIMIT 1000 FOR UPDATE SKIP LOCKED
    ), filled AS (
        UPDATE owners SET nonce = DEFAULT WHERE user_id = ANY(ARRAY(SELECT user_id FROM step)) AND nonce = ''
    )
    SELECT max(user_id) FROM step
""")


def upgrade() -> None:
    # A default that is another one for each row would have the whole table written anew, and locked meanwhile.
    op.execute("ALTER TABLE owners ADD COLUMN IF NOT EXISTS nonce text NOT NULL DEFAULT ''")
    op.execute("ALTER TABLE owners ALTER COLUMN nonce SET DEFAULT substr(gen_random_uuid()::text, 25)")
    with op.get_context().autocommit_block():
        after: str | None = ""
        while after is not None:
            after = op.get_bind().execute(FILL, {"after": after}).scalar()
    op.execute("UPDATE owners SET nonce = DEFAULT WHERE nonce = ''")


def downgrade() -> None:
    op.drop_column("owners", "nonce")

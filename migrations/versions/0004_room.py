"""Remember until when there is room for another task, so that the tasks of busy users are seldom counted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("owners", sa.Column("room_until", sa.BigInteger, nullable=False, server_default="100000"))


def downgrade() -> None:
    op.drop_column("owners", "room_until")

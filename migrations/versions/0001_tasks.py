"""Owners, tasks and tombstones; the role that requests run as, and what it may see."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = ("owners", "tasks", "tombstones", "answers")

SCHEMA = """
CREATE TABLE owners (
    user_id text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL DEFAULT 0,
    last_position double precision NOT NULL DEFAULT 0,
    horizon bigint NOT NULL DEFAULT 0
);

CREATE TABLE tasks (
    user_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    title text NOT NULL CONSTRAINT tasks_title_length CHECK (char_length(title) BETWEEN 1 AND 200),
    title_key text COLLATE "C" NOT NULL,
    description_key text COLLATE "C",
    description text CONSTRAINT tasks_description_length CHECK (char_length(description) <= 2000),
    completed boolean NOT NULL DEFAULT false,
    completed_at timestamptz,
    priority smallint NOT NULL DEFAULT 2 CONSTRAINT tasks_priority CHECK (priority BETWEEN 1 AND 3),
    due_on date,
    due_at timestamptz,
    due_key timestamptz GENERATED ALWAYS AS (coalesce(due_at, timezone('UTC', due_on::timestamp))) STORED,
    tags text[] NOT NULL DEFAULT '{}' CONSTRAINT tasks_tags_count CHECK (cardinality(tags) <= 20),
    tag_keys text[] NOT NULL DEFAULT '{}',
    recurrence text,
    repeat_from text NOT NULL DEFAULT 'due' CONSTRAINT tasks_repeat_from CHECK (repeat_from IN ('due', 'completion')),
    series uuid,
    occurrence integer,
    position double precision NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    version bigint NOT NULL,
    PRIMARY KEY (user_id, id),
    CONSTRAINT tasks_completed_at CHECK (completed = (completed_at IS NOT NULL)),
    CONSTRAINT tasks_one_due CHECK (due_on IS NULL OR due_at IS NULL),
    CONSTRAINT tasks_due_range CHECK (due_key >= '1970-01-01Z' AND due_key < '10000-01-01Z'),
    CONSTRAINT tasks_series CHECK ((series IS NULL) = (occurrence IS NULL)),
    CONSTRAINT tasks_recurrence_due CHECK (recurrence IS NULL OR due_key IS NOT NULL)
);
CREATE INDEX tasks_by_creation ON tasks (user_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX tasks_by_version ON tasks (user_id, version);
CREATE INDEX tasks_in_trash ON tasks (user_id, deleted_at) WHERE deleted_at IS NOT NULL;
CREATE INDEX tasks_by_id ON tasks (id);
CREATE UNIQUE INDEX tasks_by_occurrence ON tasks (user_id, series, occurrence) WHERE series IS NOT NULL;

CREATE TABLE tombstones (
    user_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    version bigint NOT NULL,
    purged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, id)
);
CREATE INDEX tombstones_by_version ON tombstones (user_id, version);

CREATE TABLE answers (
    user_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint NOT NULL,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
"""

# Roles belong to the whole server, so another database of it may have made this one already, or be making it right now.
ROLE = """
DO $$ BEGIN
    CREATE ROLE todo_app NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$;
DO $$ BEGIN
    GRANT todo_app TO CURRENT_USER;
EXCEPTION WHEN insufficient_privilege THEN NULL;  -- whoever made the role has granted it, or the service will say so
END $$;
"""


def upgrade() -> None:
    op.execute(SCHEMA)
    op.execute(ROLE)
    for table in TABLES:
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO todo_app")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        # Without an owner the setting is null, or empty where the connection has served one, and no row is anybody's.
        op.execute(
            f"CREATE POLICY owner_only ON {table} TO todo_app "
            "USING (user_id = nullif(current_setting('app.user_id', true), ''))"
        )


def downgrade() -> None:
    for table in TABLES:
        op.execute(f"DROP TABLE {table}")

"""The tables. What reads tasks stands in `queries.py`, what changes them in `mutations.py`.

`user_id` leads every key, so that the schema can be distributed by user; no constraint crosses users.
`owners.revision` counts a user's changes; each change stamps the row it touches with the new count as `version`, which
orders the delta feed without gaps and, with the owner's nonce, makes the entity tags.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from .config import ROOT
from .search import fold

MAX_TITLE = 200
MAX_DESCRIPTION = 2000
MAX_TAGS = 20
MAX_TAG = 50
PRIORITIES = ("low", "medium", "high")
REPEAT_FROM = ("due", "completion")
QUOTA = 100_000
MAX_BATCH = 100
MAX_POSITION = 1e12
# The highest number that an occurrence can have; the column is an integer.
MAX_OCCURRENCE = (1 << 31) - 1
# How long the answer to a request with an Idempotency-Key is kept.
ANSWER_HOURS = 24

# Byte order: the same on every server, whatever its locale, and the fastest to compare.
BYTES = Text(collation="C")
TIME = DateTime(timezone=True)

# Rules between fields that only the whole row can break: constraint -> field, message.
MEANING = {"tasks_recurrence_due": ("recurrence", "Needs a due_date.")}

CARRIED = [
    *("title_key", "updated_at", "due_key", "priority", "position"),
    *("due_on", "due_at", "completed", "completed_at"),
]

# The role that requests run as.
ROLE = "todo_app"
# Where Alembic notes which revision the schema has.
VERSION_TABLE = "alembic_version"
# The revision this code is written for: the last one's, after which its file is named.
REVISION = max(path.name for path in (ROOT / "migrations" / "versions").glob("*.py")).partition("_")[0]

metadata = MetaData()

owners = Table(
    "owners",
    metadata,
    Column("user_id", BYTES, primary_key=True),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    # The highest position any task had: a new task goes behind it without a look at the others.
    Column("last_position", Double, nullable=False, server_default="0"),
    # Until this revision there is room for another task for certain: since the tasks were counted there can't have been
    # more of them added than changes made. A new user has none.
    Column("room_until", BigInteger, nullable=False, server_default=str(QUOTA)),
    # Up to this revision tombstones have been dropped: a delta token older than this can't be answered.
    Column("horizon", BigInteger, nullable=False, server_default="0"),
    # Random, and another one for each life of a user: part of each entity tag and sync token, which are good for no
    # other user, and in no other database that has counted as far.
    Column("nonce", Text, nullable=False, server_default=text("substr((gen_random_uuid())::text, 25)")),
)

tasks = Table(
    "tasks",
    metadata,
    Column("user_id", BYTES, primary_key=True),
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("title", Text, nullable=False),
    # The title in folded case, made by the service, so that the alphabetical order is the same on every server.
    Column("title_key", BYTES, nullable=False),
    Column("description", Text),
    # Both in folded case, for searches that find what the user means on every server.
    Column("description_key", BYTES),
    Column("completed", Boolean, nullable=False, server_default="false"),
    Column("completed_at", TIME),
    Column("priority", SmallInteger, nullable=False, server_default="2"),
    Column("due_on", Date),
    Column("due_at", TIME),
    # A date-only due date counts from its midnight in UTC.
    Column("due_key", TIME, Computed("coalesce(due_at, timezone('UTC', due_on::timestamp))", persisted=True)),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("tag_keys", ARRAY(Text), nullable=False, server_default="{}"),
    Column("recurrence", Text),
    Column("repeat_from", Text, nullable=False, server_default="due"),
    # A task that repeats and its successors are one series, counted from 0; each occurrence is made at most once.
    Column("series", Uuid(as_uuid=False)),
    Column("occurrence", Integer),
    Column("position", Double, nullable=False),
    Column("created_at", TIME, nullable=False, server_default=func.now()),
    Column("updated_at", TIME, nullable=False, server_default=func.now()),
    Column("deleted_at", TIME),
    Column("version", BigInteger, nullable=False),
    CheckConstraint(f"char_length(title) BETWEEN 1 AND {MAX_TITLE}", name="tasks_title_length"),
    CheckConstraint(f"char_length(description) <= {MAX_DESCRIPTION}", name="tasks_description_length"),
    CheckConstraint("completed = (completed_at IS NOT NULL)", name="tasks_completed_at"),
    CheckConstraint(f"priority BETWEEN 1 AND {len(PRIORITIES)}", name="tasks_priority"),
    CheckConstraint("due_on IS NULL OR due_at IS NULL", name="tasks_one_due"),
    # Python and JavaScript can read every year in this range; a row outside could be stored but never listed.
    CheckConstraint("due_key >= '1970-01-01Z' AND due_key < '10000-01-01Z'", name="tasks_due_range"),
    CheckConstraint(f"cardinality(tags) <= {MAX_TAGS}", name="tasks_tags_count"),
    CheckConstraint("repeat_from IN ('due', 'completion')", name="tasks_repeat_from"),
    CheckConstraint("(series IS NULL) = (occurrence IS NULL)", name="tasks_series"),
    CheckConstraint("recurrence IS NULL OR due_key IS NOT NULL", name="tasks_recurrence_due"),
    # In the order of a list's default sort. The other sort keys, and what filters and counts ask for, are only carried
    # along: to sort or count one user's tasks PostgreSQL then reads a few pages of this index instead of a page of the
    # table for each task, and a change still has no more indexes to write to.
    Index(
        "tasks_by_creation",
        "user_id",
        "created_at",
        "id",
        postgresql_include=CARRIED,
        postgresql_where=text("deleted_at IS NULL"),
    ),
    Index("tasks_by_version", "user_id", "version"),
    Index(
        "tasks_by_occurrence",
        "user_id",
        "series",
        "occurrence",
        unique=True,
        postgresql_where=text("series IS NOT NULL"),
    ),
    Index("tasks_in_trash", "user_id", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
    # Not led by user_id: it answers whether an id is anybody's, which is what parts 403 from 404.
    Index("tasks_by_id", "id"),
)

tombstones = Table(
    "tombstones",
    metadata,
    Column("user_id", BYTES, primary_key=True),
    Column("id", Uuid(as_uuid=False), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("purged_at", TIME, nullable=False, server_default=func.now()),
    Index("tombstones_by_version", "user_id", "version"),
    # Not led by user_id: the purge looks for what is old, whoever's it is, and one user's alone are few.
    Index("tombstones_by_age", "purged_at"),
)

# What POST requests with an Idempotency-Key were answered, for 24 hours.
answers = Table(
    "answers",
    metadata,
    Column("user_id", BYTES, primary_key=True),
    Column("key", BYTES, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("headers", JSONB, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", TIME, nullable=False, server_default=func.now()),
    # For the purge, as that of the tombstones.
    Index("answers_by_age", "created_at"),
)


BLANK: dict[str, Any] = dict(
    description=None,
    completed=False,
    priority=None,
    due_date=None,
    tags=None,
    position=None,
    recurrence=None,
    repeat_from=None,
)


def columns(fields: dict[str, Any]) -> dict[str, Any]:
    """A request's fields as the columns they are kept in; null puts the default back where a column can't be empty."""
    values = dict(fields)
    for name in ("title", "description"):
        if name in values:
            values[f"{name}_key"] = None if values[name] is None else fold(values[name])
    if "priority" in values:
        values["priority"] = PRIORITIES.index(values["priority"] or "medium") + 1
    if "tags" in values:
        values["tags"] = values["tags"] or []
        values["tag_keys"] = [fold(tag) for tag in values["tags"]]
    if "repeat_from" in values:
        values["repeat_from"] = values["repeat_from"] or "due"
    if "due_date" in values:
        due = values.pop("due_date")
        timed = hasattr(due, "hour")
        values["due_on"], values["due_at"] = (None, due) if timed else (due, None)
    return values

"""The tables, as mapped classes, and what there is to know of each of a task's columns.

A column's `info` says whether clients see it (`shown`, unless False), whether it is made of what they send (`sent`,
unless False), and whether a task's next occurrence begins with a copy of it (`copied`). Statements and units of work
are made from that; docs/adding-a-field.md goes through all that another field needs.

`user_id` leads every key, so that the schema can be distributed by user; no constraint crosses users.
`Owner.revision` counts a user's changes; each change stamps the row it touches with the new count as `version`, which
orders the delta feed without gaps and is a part of the entity tags.
"""

from datetime import date, datetime
from typing import Any, ClassVar, cast

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Double,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ..config import ROOT

MAX_TITLE = 200
MAX_DESCRIPTION = 2000
MAX_CATEGORY = 50
MAX_ITEMS = 50
MAX_TAGS = 20
MAX_TAG = 50
PRIORITIES = ("low", "medium", "high")
REPEAT_FROM = ("due", "completion")
QUOTA = 100_000
MAX_POSITION = 1e12
MAX_BATCH = 100
# The highest number that an occurrence can have; the column is an integer.
MAX_OCCURRENCE = (1 << 31) - 1
# How long the answer to a request with an Idempotency-Key is kept.
ANSWER_HOURS = 24

# Byte order: the same on every server, whatever its locale, and the fastest to compare.
BYTES = Text(collation="C")
TIME = DateTime(timezone=True)
ID = Uuid(as_uuid=False)

# The role that requests run as.
ROLE = "todo_app"
# Where Alembic notes which revision the schema has.
VERSION_TABLE = "alembic_version"
# The revision this code is written for: the last one's, after which its file is named.
REVISION = max(path.name for path in (ROOT / "migrations" / "versions").glob("*.py")).partition("_")[0]

# Who changes the schema has this lock, one at a time: any number that nothing else in the database uses.
SCHEMA_LOCK = 7_160_455_873_141

COPIED, HIDDEN, SET_HERE = {"copied": True}, {"shown": False}, {"sent": False}

# Rules between fields that only the whole row can break: constraint -> field, message.
CONSTRAINT_PROBLEMS = {"tasks_recurrence_due": ("recurrence", "Needs a due_date.")}


CARRIED = [
    *("title_key", "updated_at", "due_key", "priority", "position"),
    *("due_on", "due_at", "completed", "completed_at"),
]


class Base(DeclarativeBase):
    type_annotation_map: ClassVar = {str: Text, int: BigInteger, float: Double, datetime: TIME, bytes: LargeBinary}


class Owner(Base):
    """A user, from their first change on."""

    __tablename__ = "owners"

    user_id: Mapped[str] = mapped_column(BYTES, primary_key=True)
    revision: Mapped[int] = mapped_column(server_default="0")
    # The highest position any task had: a new task goes behind it without a look at the others.
    last_position: Mapped[float] = mapped_column(server_default="0")
    # Until this revision there is room for another task for certain: since the tasks were counted there can't have been
    # more of them added than changes made. A new user has none.
    room_until: Mapped[int] = mapped_column(server_default=str(QUOTA))
    # Up to this revision tombstones have been dropped: a delta token older than this can't be answered.
    horizon: Mapped[int] = mapped_column(server_default="0")
    # Random, and another one for each life of a user: part of each entity tag and sync token, which are good for no
    # other user, and in no other database that has counted as far.
    nonce: Mapped[str] = mapped_column(server_default=text("substr((gen_random_uuid())::text, 25)"))


class Task(Base):
    __tablename__ = "tasks"

    user_id: Mapped[str] = mapped_column(BYTES, primary_key=True, info=SET_HERE)
    id: Mapped[str] = mapped_column(ID, primary_key=True, info=SET_HERE)
    title: Mapped[str] = mapped_column(info=COPIED)
    # The title in folded case, made by the service, so that the alphabetical order is the same on every server.
    title_key: Mapped[str] = mapped_column(BYTES, info=COPIED | HIDDEN)
    description: Mapped[str | None] = mapped_column(info=COPIED)
    # Both in folded case, for searches that find what the user means on every server.
    description_key: Mapped[str | None] = mapped_column(BYTES, info=COPIED | HIDDEN)
    completed: Mapped[bool] = mapped_column(server_default="false")
    completed_at: Mapped[datetime | None] = mapped_column(info=SET_HERE)
    priority: Mapped[int] = mapped_column(SmallInteger, server_default="2", info=COPIED)
    due_on: Mapped[date | None]
    due_at: Mapped[datetime | None]
    # A date-only due date counts from its midnight in UTC.
    due_key: Mapped[datetime | None] = mapped_column(
        Computed("coalesce(due_at, timezone('UTC', due_on::timestamp))", persisted=True), info=HIDDEN | SET_HERE
    )
    category: Mapped[str | None] = mapped_column(info=COPIED)
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}", info=COPIED)
    tag_keys: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}", info=COPIED | HIDDEN)
    # [{"title": …, "completed": …}, …]
    checklist: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default="[]", info=COPIED)
    recurrence: Mapped[str | None]
    repeat_from: Mapped[str] = mapped_column(server_default="due", info=COPIED)
    # A task that repeats and its successors are one series, counted from 0; each occurrence is made at most once.
    series: Mapped[str | None] = mapped_column(ID, info=HIDDEN | SET_HERE)
    occurrence: Mapped[int | None] = mapped_column(Integer, info=HIDDEN | SET_HERE)
    position: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), info=SET_HERE)
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), info=SET_HERE)
    deleted_at: Mapped[datetime | None] = mapped_column(info=SET_HERE)
    version: Mapped[int] = mapped_column(info=SET_HERE)

    __table_args__ = (
        CheckConstraint(f"char_length(title) BETWEEN 1 AND {MAX_TITLE}", name="tasks_title_length"),
        CheckConstraint(f"char_length(description) <= {MAX_DESCRIPTION}", name="tasks_description_length"),
        CheckConstraint("completed = (completed_at IS NOT NULL)", name="tasks_completed_at"),
        CheckConstraint(f"priority BETWEEN 1 AND {len(PRIORITIES)}", name="tasks_priority"),
        CheckConstraint("due_on IS NULL OR due_at IS NULL", name="tasks_one_due"),
        # Python and JavaScript can read every year in this range; a row outside could be stored but never listed.
        CheckConstraint("due_key >= '1970-01-01Z' AND due_key < '10000-01-01Z'", name="tasks_due_range"),
        CheckConstraint(f"char_length(category) BETWEEN 1 AND {MAX_CATEGORY}", name="tasks_category_length"),
        CheckConstraint(f"cardinality(tags) <= {MAX_TAGS}", name="tasks_tags_count"),
        CheckConstraint(f"jsonb_array_length(checklist) <= {MAX_ITEMS}", name="tasks_checklist_count"),
        CheckConstraint("repeat_from IN ('due', 'completion')", name="tasks_repeat_from"),
        CheckConstraint("(series IS NULL) = (occurrence IS NULL)", name="tasks_series"),
        CheckConstraint("recurrence IS NULL OR due_key IS NOT NULL", name="tasks_recurrence_due"),
        # In the order of a list's default sort. The other sort keys, and what filters and counts ask for, are only
        # carried along: to sort or count one user's tasks PostgreSQL then reads a few pages of this index instead of a
        # page of the table for each task, and a change still has no more indexes to write to.
        Index(
            "tasks_by_creation",
            *("user_id", "created_at", "id"),
            postgresql_include=CARRIED,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("tasks_by_version", "user_id", "version"),
        Index(
            "tasks_by_occurrence",
            *("user_id", "series", "occurrence"),
            unique=True,
            postgresql_where=text("series IS NOT NULL"),
        ),
        Index("tasks_in_trash", "user_id", "deleted_at", postgresql_where=text("deleted_at IS NOT NULL")),
        # Not led by user_id: it answers whether an id is anybody's, which is what parts 403 from 404.
        Index("tasks_by_id", "id"),
    )


class Tombstone(Base):
    """What is left of a task that was deleted for good, for clients that sync."""

    __tablename__ = "tombstones"

    user_id: Mapped[str] = mapped_column(BYTES, primary_key=True)
    id: Mapped[str] = mapped_column(ID, primary_key=True)
    version: Mapped[int]
    purged_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("tombstones_by_version", "user_id", "version"),
        # Not led by user_id: the purge looks for what is old, whoever's it is, and one user's alone are few.
        Index("tombstones_by_age", "purged_at"),
    )


class Answer(Base):
    """What a POST with an Idempotency-Key was answered, for ANSWER_HOURS."""

    __tablename__ = "answers"

    user_id: Mapped[str] = mapped_column(BYTES, primary_key=True)
    key: Mapped[str] = mapped_column(BYTES, primary_key=True)
    fingerprint: Mapped[bytes]
    status: Mapped[int] = mapped_column(SmallInteger)
    headers: Mapped[dict[str, str]] = mapped_column(JSONB)
    body: Mapped[bytes]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    # For the purge, as that of the tombstones.
    __table_args__ = (Index("answers_by_age", "created_at"),)


# The same as tables. Statements are written against these: a statement on mapped attributes costs a third more of the
# Session's time, and gives the same rows, whose columns are read by name either way.
owners, tasks, tombstones, answers = (cast(Table, mapped.__table__) for mapped in (Owner, Task, Tombstone, Answer))

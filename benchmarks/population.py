"""A database full of users and their tasks, as years of use would have left it.

The rows are made by PostgreSQL itself, which is faster than sending them: first a history (who made a task when, and
what became of it), then, in the order of that history, the tasks, so that a user's tasks lie as far apart on the disk
as those of a real service. Indexes are taken away first and made again at the end. Versions, positions and the owners'
counts agree, so the service goes on from there. Only the words come from Python.
"""

import hashlib
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import click
import psycopg2.extensions
from psycopg2.extras import execute_values

from todo_service import cli
from todo_service.tasks.search import fold

PHRASES, NOTES, TAG_SETS = 5000, 2000, 500
TAGS = ("home", "work", "shopping", "Garden", "errands", "family", "health", "money", "travel", "school", "someday")
SYLLABLES = ("ba", "cor", "del", "fi", "gran", "hu", "jo", "kel", "lum", "mar", "no", "pri", "qua", "ren", "sol", "tev")
# In the titles of one task in a hundred, and of none.
RARE, ABSENT = "zebra", "xylophone"
CHUNK_PAGES = 2000
# For one statement, as the connection may be shared.
MEMORY = "SET LOCAL work_mem = '512MB'; SET LOCAL maintenance_work_mem = '1GB'; "


class Group(NamedTuple):
    """Users who have the same number of tasks each."""

    name: str
    users: int
    tasks: int


class Shape(NamedTuple):
    """Who shares a database."""

    groups: tuple[Group, ...]

    @property
    def tasks(self) -> int:
        return sum(group.users * group.tasks for group in self.groups)


def user_id(group: str, number: int) -> str:
    """The id of a group's user, counted from 1; as random as a real one."""
    return hashlib.md5(f"{group} {number}".encode(), usedforsecurity=False).hexdigest()


HISTORY = """
CREATE UNLOGGED TABLE history AS
WITH sizes AS (
    SELECT md5(name || ' ' || number) AS user_id, tasks
    FROM (VALUES %s) AS groups (name, users, many), generate_series(1, users) AS number,
         LATERAL (SELECT many + many / 100 AS tasks) AS with_those_that_are_purged
), made AS (
    -- Each user's tasks are spread evenly over two years.
    SELECT user_id, number AS position, random() AS fate, random() AS delay,
           now() - interval '730 days' * (1 - (number - random()) / tasks) AS created_at
    FROM sizes, generate_series(1, tasks) AS number
), changed AS (
    -- Trash is at most 31 days old, because the older is purged daily; of the purged, there are tombstones for 90 days.
    SELECT *, CASE
        WHEN fate < 0.03 THEN greatest(created_at, now() - delay * interval '31 days')
        WHEN fate < 0.04 THEN greatest(created_at, now() - delay * interval '90 days')
        WHEN fate < 0.8 THEN least(now(), created_at + delay ^ 3 * interval '90 days')
        ELSE created_at END AS changed_at
    FROM made
)
SELECT *, 2 * row_number() OVER (PARTITION BY user_id ORDER BY changed_at, position) AS version
FROM changed ORDER BY created_at
"""

# The first six bytes of a UUIDv7 are the milliseconds (RFC 9562, section 5.7).
UUID7 = """encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
    PLACING substring(int8send(floor(extract(epoch FROM created_at) * 1000)::bigint) FROM 3) FROM 1 FOR 6),
    52, 1), 53, 1), 'hex')::uuid"""

OWNERS = """
INSERT INTO owners (user_id, revision, last_position)
SELECT user_id, 2 * count(*), count(*) FROM history GROUP BY user_id
"""

# Of the trashed and the live tasks alike: 3 in 5 completed, 3 in 5 due, half of these on a day, 1 in 50 repeating.
TASKS = f"""
INSERT INTO tasks (user_id, id, title, title_key, description, description_key, completed, completed_at, priority,
                   due_on, due_at, tags, tag_keys, recurrence, position, created_at, updated_at, deleted_at, version)
SELECT user_id, {UUID7}, a.text || ' ' || b.text, a.key || ' ' || b.key, notes.text, notes.key,
       fate < 0.6, CASE WHEN fate < 0.6 THEN changed_at END, CASE WHEN p < 0.2 THEN 1 WHEN p < 0.8 THEN 2 ELSE 3 END,
       CASE WHEN d < 0.3 THEN (created_at + due)::date END, CASE WHEN d BETWEEN 0.3 AND 0.6 THEN created_at + due END,
       tag_sets.tags, tag_sets.keys, CASE WHEN d < 0.02 THEN 'FREQ=WEEKLY' END, position, created_at, changed_at,
       CASE WHEN fate < 0.03 THEN changed_at END, version
FROM (
    SELECT history.*, random() AS p, random() AS d, random() * interval '90 days' AS due,
           floor(random() * {PHRASES})::integer AS phrase_1, floor(random() * {PHRASES})::integer AS phrase_2,
           floor(random() * {NOTES})::integer AS note, floor(random() * {TAG_SETS})::integer AS tag_set
    FROM history
    WHERE ctid >= format('(%%s,0)', %(first)s)::tid AND ctid < format('(%%s,0)', %(first)s + {CHUNK_PAGES})::tid
      AND NOT fate BETWEEN 0.03 AND 0.04
) AS one
JOIN phrases AS a ON a.id = phrase_1 JOIN phrases AS b ON b.id = phrase_2
JOIN notes ON notes.id = note JOIN tag_sets ON tag_sets.id = tag_set
"""  # noqa: S608

TOMBSTONES = f"""
INSERT INTO tombstones (user_id, id, version, purged_at)
SELECT user_id, {UUID7}, version, changed_at FROM history WHERE fate BETWEEN 0.03 AND 0.04
"""  # noqa: S608


def populate(url: str, shape: Shape, label: str) -> None:
    """Fill the empty database at `url`."""
    cli.upgrade(url)
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        put_words(cursor)
        execute_values(cursor, MEMORY + HISTORY, shape.groups, page_size=len(shape.groups))
        with without_indexes(cursor, ("tasks", "tombstones")):
            cursor.execute(OWNERS)
            cursor.execute(TOMBSTONES)
            cursor.execute("SELECT pg_relation_size('history') / current_setting('block_size')::integer")
            pages = cursor.fetchone()[0]  # type: ignore[index]
            with click.progressbar(range(0, pages, CHUNK_PAGES), label=f"{label}: tasks") as chunks:
                for first in chunks:
                    cursor.execute(TASKS, {"first": first})
        cursor.execute("DROP TABLE history, phrases, notes, tag_sets")
        cursor.execute("VACUUM (ANALYZE)")
        cursor.execute("CHECKPOINT")


@contextmanager
def without_indexes(cursor: psycopg2.extensions.cursor, tables: tuple[str, ...]) -> Iterator[None]:
    """Take the indexes of `tables` away for the length of a block: making them at once is many times faster."""
    keys = """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
              WHERE contype = 'p' AND conrelid::regclass::text = ANY(%s)"""
    others = """SELECT indexname, indexdef FROM pg_indexes WHERE tablename = ANY(%s)
                AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE contype = 'p')"""
    primary, plain = fetch(cursor, keys, [list(tables)]), fetch(cursor, others, [list(tables)])
    statements = [f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}" for table, name, definition in primary]
    for table, name, _ in primary:
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in plain:
        cursor.execute(f"DROP INDEX {name}")
    yield
    with click.progressbar([*statements, *(definition for _, definition in plain)], label="indexes") as todo:
        for statement in todo:
            cursor.execute(MEMORY + statement)


def fetch(cursor: psycopg2.extensions.cursor, sql: str, values: Any = None) -> list[tuple[Any, ...]]:
    cursor.execute(sql, values)
    return cursor.fetchall()


def put_words(cursor: psycopg2.extensions.cursor) -> None:
    """What titles, descriptions and tags are made of, the same in every run."""
    draw = random.Random(0)  # noqa: S311
    words = ["".join(draw.choices(SYLLABLES, k=draw.choice((1, 2, 2, 3, 3, 4)))) for _ in range(2000)]

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=length)).capitalize()

    def note() -> str | None:
        kind = draw.random()
        return None if kind < 0.4 else text(draw.randint(4, 25)) if kind < 0.9 else text(draw.randint(100, 220))[:2000]

    # One phrase in two hundred; a title has two.
    phrases = [text(draw.randint(1, 4)) + (f" {RARE}" if number % 200 == 0 else "") for number in range(PHRASES)]
    tags = [draw.sample(TAGS, draw.choices((0, 1, 2, 3, 5), (40, 30, 15, 10, 5))[0]) for _ in range(TAG_SETS)]
    cursor.execute(
        "CREATE UNLOGGED TABLE phrases (id integer, text text, key text);"
        "CREATE UNLOGGED TABLE notes (id integer, text text, key text);"
        "CREATE UNLOGGED TABLE tag_sets (id integer, tags text[], keys text[])"
    )
    notes = [note() for _ in range(NOTES)]
    execute_values(cursor, "INSERT INTO phrases VALUES %s", [(n, text, fold(text)) for n, text in enumerate(phrases)])
    execute_values(
        cursor, "INSERT INTO notes VALUES %s", [(n, text, text and fold(text)) for n, text in enumerate(notes)]
    )
    rows = [(n, names, [fold(name) for name in names]) for n, names in enumerate(tags)]
    execute_values(cursor, "INSERT INTO tag_sets VALUES %s", rows, template="(%s, %s::text[], %s::text[])")
    cursor.execute("ANALYZE phrases, notes, tag_sets")

"""What indexes cost on changes and gain on reads: the grounds on which the schema has them, or hasn't.

    python -m benchmarks.writes --data /var/tmp/growth        # in the database that benchmarks.growth has left there

The schema as it is, and one with other indexes, take turns in one database, so that rounds of both meet the same
noise: indexes are switched off and on in the catalogue, and PostgreSQL then acts as if they weren't there. Neither
depends on noise what a change writes to the log, nor how many changes are "heap-only": they change no column that an
index has, and so write to none.
"""

import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import click
from sqlalchemy import Engine, text

from benchmarks import server
from benchmarks.growth import Target, database, shapes
from benchmarks.operations import all_operations
from benchmarks.population import fetch, user_id
from todo_service.db.session import Session
from todo_service.tasks import commands


class Variant(NamedTuple):
    """Other indexes: these not, but those; and the operation that tells the difference for reads."""

    reads: str
    without: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()


LIVE = "WHERE deleted_at IS NULL"
PLAIN = f"(user_id, created_at, id) {LIVE}"
BY_UPDATE = "list, sort=updated_at&order=desc, 1000"
VARIANTS = {
    "without tasks_by_creation": Variant(BY_UPDATE, ("tasks_by_creation",)),
    "tasks_by_creation carrying nothing": Variant(BY_UPDATE, ("tasks_by_creation",), (PLAIN,)),
    "without tasks_by_version": Variant("changes, the last ten", ("tasks_by_version",)),
    "both": Variant("list, search, one in a hundred", ("tasks_by_creation", "tasks_by_version"), (PLAIN,)),
    # Without it the 404 that it is there for takes longer than a statement may.
    "without tasks_by_id": Variant("get", ("tasks_by_id",)),
    "more, by due date": Variant(
        "list, sort=due_date&order=asc, 1000", (), (f"(user_id, (due_key IS NULL), due_key, id) {LIVE}",)
    ),
    "more, by priority": Variant("list, sort=priority&order=desc, 1000", (), (f"(user_id, priority, id) {LIVE}",)),
    "more, by title": Variant("list, sort=title&order=asc, 1000", (), (f"(user_id, title_key, id) {LIVE}",)),
    "more, by position": Variant("list, sort=position&order=asc, 1000", (), (f"(user_id, position, id) {LIVE}",)),
    "more, by update": Variant(BY_UPDATE, (), (f"(user_id, updated_at, id) {LIVE}",)),
}
# Ordinary users whom the other measurements leave alone.
USERS = range(1000, 1060)
CHANGES = ("create", "update", "complete")
UTC = ZoneInfo("UTC")
HOT = (
    "SELECT pg_stat_get_tuples_hot_updated(oid), pg_stat_get_tuples_updated(oid) FROM pg_class WHERE relname = 'tasks'"
)

Figures = dict[str, list[float]]


def changed(target: Target) -> Figures:
    """Create, update and complete a task of each of some users.

    Of each: the milliseconds, the bytes logged, and the percentage of changes that wrote to no index.
    """
    engine: Engine = target.app.extensions["engine"]
    owners = [user_id("ordinary", number) for number in USERS]

    def first(session: Session) -> Any:
        return commands.create_task(session, {"title": "Buy milk"})

    ids = {owner: done(engine, owner, first).id for owner in owners}
    steps: dict[str, Callable[[Session], object]] = {
        "create": lambda one: commands.create_task(one, {"title": "Buy milk", "tags": ["home"]}),
        "update": lambda one: commands.update_task(one, ids[one.owner], {"title": "Buy oat milk"}, None, UTC),
        "complete": lambda one: commands.complete_task(one, ids[one.owner], True, None, UTC),
    }
    figures: Figures = {}
    for name, step in steps.items():
        bytes, hot = logged(target), heap_only(target)
        figures[name] = [timed(engine, owner, step) for owner in owners]
        figures[f"{name}, bytes"] = [(logged(target) - bytes) / len(owners)]
        figures[f"{name}, heap-only"] = [heap_only(target, hot)]
    return figures


def done(engine: Engine, owner: str, step: Callable[[Session], Any]) -> Any:
    with Session(engine, owner) as session:
        return step(session)


def timed(engine: Engine, owner: str, step: Callable[[Session], object]) -> float:
    began = time.perf_counter()
    done(engine, owner, step)
    return (time.perf_counter() - began) * 1000


def logged(target: Target) -> int:
    [(position,)] = fetch(target.cursor, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
    target.cursor.connection.rollback()
    return int(position)


def heap_only(target: Target, since: tuple[int, int] = (0, 0)) -> Any:
    """How many of the rows changed were so without a write to an index, and how many in all.

    `since`: the percentage of what came after that.
    """
    # What a connection has counted is not told at once, otherwise; the pool gives the one that was used last.
    done(target.app.extensions["engine"], "", lambda one: one.execute(text("SELECT pg_stat_force_next_flush()")))
    [(hot, all)] = fetch(target.cursor, HOT)
    target.cursor.connection.rollback()
    return (hot, all) if since == (0, 0) else 100 * (hot - since[0]) / max(1, all - since[1])


def switch(target: Target, indexes: tuple[str, ...], on: bool) -> None:
    sql = """UPDATE pg_index SET indislive = %(on)s, indisready = %(on)s, indisvalid = %(on)s
             WHERE indexrelid = ANY(%(indexes)s::regclass[])"""
    target.cursor.execute(sql, {"on": on, "indexes": list(indexes)})
    # Prepared statements are planned anew when something changes about the table itself.
    target.cursor.execute("UPDATE pg_class SET reltuples = reltuples WHERE oid = 'tasks'::regclass")
    target.cursor.connection.commit()


def tried(target: Target, variant: Variant, made: tuple[str, ...], rounds: int) -> dict[str, Any]:
    """The medians of the schema as it is and of the variant; of reads the best, for the user with the most tasks and a
    busy one.
    """
    [reading] = [one for one in all_operations() if one.name == variant.reads]
    readers = {group: target.subjects(group, 1)[0] for group in ("heavy", "busy")}
    figures: dict[bool, Figures] = {False: defaultdict(list), True: defaultdict(list)}
    for number in range(2 * (rounds + 1)):
        other = number % 2 == 1
        switch(target, variant.without, not other)
        switch(target, made, other)
        changes = changed(target)
        reads = {group: [target.once(reading, user)[1].milliseconds] for group, user in readers.items()}
        for name, found in ({} if number < 2 else changes | reads).items():
            figures[other][name] += found
    sizes = fetch(target.cursor, "SELECT pg_relation_size(i) FROM unnest(%s::regclass[]) i", (list(made),))
    target.cursor.connection.rollback()

    def middle(name: str) -> list[float]:
        return [round((min if name in readers else statistics.median)(figures[on][name]), 3) for on in (False, True)]

    megabytes = round(sum(size for (size,) in sizes) / 2**20)
    return {"megabytes": megabytes, "reads": variant.reads} | {name: middle(name) for name in figures[True]}


def try_variant(target: Target, variant: Variant, rounds: int) -> dict[str, Any]:
    """Try one of VARIANTS; the database is as before when this returns."""
    made = tuple(f"variant_{number}" for number, _ in enumerate(variant.instead))
    for name, definition in zip(made, variant.instead, strict=True):
        server.execute(target.url, f"CREATE INDEX {name} ON tasks {definition}; ANALYZE tasks")
    # A vacuum passes over an index that is switched off, which then points at rows that are gone.
    server.execute(target.url, "ALTER TABLE tasks SET (autovacuum_enabled = off)")
    try:
        return tried(target, variant, made, rounds)
    finally:
        switch(target, (*variant.without, *made), True)
        for name in made:
            server.execute(target.url, f"DROP INDEX {name}")
        # While they were switched off they have missed changes.
        for name in variant.without:
            server.execute(target.url, f"REINDEX INDEX {name}")
        server.execute(target.url, "ALTER TABLE tasks RESET (autovacuum_enabled)")


def table(results: dict[str, dict[str, Any]]) -> str:
    """For a terminal: the schema as it is -> the variant."""
    columns = {name: f"{name}, ms" for name in (*CHANGES, "heavy", "busy")}
    columns |= {"update, bytes": "update, bytes", "update, heap-only": "update, heap-only %"}
    lines = [f"{'as it is -> otherwise':36}{'MB':>6}" + "".join(f"{title:>20}" for title in columns.values())]
    for name, one in results.items():
        cells = "".join(f"{one[column][0]:>9.5g} ->{one[column][1]:>8.5g}" for column in columns)
        lines.append(f"{name:36}{one['megabytes']:>6}{cells}   {one['reads']}")
    return "\n".join(lines)


@click.command()
@click.option("--tasks", default=10_000_000, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="Of the schema as it is, and of each other one.")
@click.option("--only", default="", help="Only variants whose name has this in it.")
@click.option("--server", "url", default=None, help="The PostgreSQL to measure on, as a URL; default: the bundled one.")
@click.option("--data", type=click.Path(path_type=Path), help="Where the bundled one keeps its data, for the next run.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Where the results go.")
def main(tasks: int, rounds: int, only: str, url: str | None, data: Path | None, file: Path | None) -> None:
    """Measure what each index costs and gains."""
    with ExitStack() as stack:
        url = url or stack.enter_context(server.bundled(data))
        made = ExitStack() if data else stack.enter_context(ExitStack())
        _, large = shapes(tasks)
        with closing(Target(database(url, "large", large, made))) as target:
            names = [name for name in VARIANTS if only in name]
            with click.progressbar(names, label="writes", item_show_func=lambda name: name) as todo:
                results = {name: try_variant(target, VARIANTS[name], rounds) for name in todo}
    click.echo(table(results))
    if file:
        file.write_text(json.dumps(results, indent=1) + os.linesep)


if __name__ == "__main__":
    main()

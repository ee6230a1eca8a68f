"""What an index costs on changes and gains on reads: the grounds on which the schema has it, or hasn't.

    python -m benchmarks.writes --data /var/tmp/growth        # in the database that benchmarks.growth has left there

An index that may be added is made, one that is there is taken as it is. Then it is switched off and on in turn, in the
catalogue, so that PostgreSQL neither reads nor writes it: rounds with it and without it meet the same noise. What a
change writes to the log is counted, too; that doesn't depend on noise.
"""

import json
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import click
from todo_service.turns import finish

from benchmarks import server
from benchmarks.growth import Target, database, shapes
from benchmarks.operations import all_operations
from benchmarks.population import fetch, user_id
from todo_service import creation, mutations

LIVE = "WHERE deleted_at IS NULL"
# Index -> what it is made of (None: it is there already), and the operation that gains by it.
CANDIDATES = {
    "tasks_by_creation": (None, "list, sort=updated_at&order=desc, 1000"),
    "the same, carrying nothing": (f"(user_id, created_at, id) {LIVE}", "list, 1000"),
    "by due date": (f"(user_id, (due_key IS NULL), due_key, id) {LIVE}", "list, sort=due_date&order=asc, 1000"),
    "by priority": (f"(user_id, priority, id) {LIVE}", "list, sort=priority&order=desc, 1000"),
    "by title": (f"(user_id, title_key, id) {LIVE}", "list, sort=title&order=asc, 1000"),
    "by position": (f"(user_id, position, id) {LIVE}", "list, sort=position&order=asc, 1000"),
    "by update": (f"(user_id, updated_at, id) {LIVE}", "list, sort=updated_at&order=desc, 1000"),
    "tasks_by_version": (None, "changes, the last ten"),
    # Without it the 404 that it is there for takes longer than a statement may.
    "tasks_by_id": (None, "get"),
}
CANDIDATE = "candidate"
# Ordinary users whom the other measurements leave alone.
USERS = range(1000, 1060)
CHANGES = ("create", "update", "complete")

Figures = dict[str, list[float]]


def changed(target: Target) -> Figures:
    """Create, update and complete a task of each of some users: the milliseconds of each, and the bytes logged."""
    owners = [user_id("ordinary", number) for number in USERS]
    figures: Figures = {}
    with target.app.app_context():
        ids = {owner: finish(creation.create_task(owner, {"title": "Buy milk"}))[0] for owner in owners}
        steps: dict[str, Callable[[str], Coroutine[Any, None, object]]] = {
            "create": lambda owner: creation.create_task(owner, {"title": "Buy milk", "tags": ["home"]}),
            "update": lambda owner: mutations.update_task(owner, ids[owner], {"title": "Buy oat milk"}, None),
            "complete": lambda owner: mutations.complete_task(owner, ids[owner], True, None),
        }
        for name, step in steps.items():
            before = logged(target)
            figures[name] = [timed(step, owner) for owner in owners]
            figures[f"{name}, bytes"] = [(logged(target) - before) / len(owners)]
    return figures


def timed(step: Callable[[str], Coroutine[Any, None, object]], owner: str) -> float:
    began = time.perf_counter()
    finish(step(owner))
    return (time.perf_counter() - began) * 1000


def logged(target: Target) -> int:
    [(position,)] = fetch(target.cursor, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")
    target.cursor.connection.rollback()
    return int(position)


def switch(target: Target, index: str, on: bool) -> None:
    values = {"on": on, "index": index}
    sql = "UPDATE pg_index SET indisready = %(on)s, indisvalid = %(on)s WHERE indexrelid = %(index)s::regclass"
    target.cursor.execute(sql, values)
    # Prepared statements are planned anew when something changes about the table itself.
    target.cursor.execute("UPDATE pg_class SET reltuples = reltuples WHERE oid = 'tasks'::regclass")
    target.cursor.connection.commit()


def tried(target: Target, index: str, operation: str, rounds: int) -> dict[str, Any]:
    """The medians without the index and with it; of reads the best, for the user with the most tasks and a busy one."""
    [reading] = [one for one in all_operations() if one.name == operation]
    readers = {group: target.subjects(group, 1)[0] for group in ("heavy", "busy")}
    figures: dict[bool, Figures] = {False: defaultdict(list), True: defaultdict(list)}
    for number in range(2 * (rounds + 1)):
        on = number % 2 == 1
        switch(target, index, on)
        changes = changed(target)
        reads = {group: [target.once(reading, user)[1].milliseconds] for group, user in readers.items()}
        for name, found in ({} if number < 2 else changes | reads).items():
            figures[on][name] += found
    [(size,)] = fetch(target.cursor, "SELECT pg_relation_size(%s::regclass)", (index,))
    target.cursor.connection.rollback()

    def middle(name: str) -> list[float]:
        return [round((min if name in readers else statistics.median)(figures[on][name]), 3) for on in (False, True)]

    return {"megabytes": round(size / 2**20), "reads": operation} | {name: middle(name) for name in figures[True]}


def try_candidate(target: Target, name: str, rounds: int) -> dict[str, Any]:
    """Try one of CANDIDATES; the database is as before when this returns."""
    definition, operation = CANDIDATES[name]
    index = CANDIDATE if definition else name
    if definition:
        server.execute(target.url, f"CREATE INDEX {CANDIDATE} ON tasks {definition}; ANALYZE tasks")
    try:
        return tried(target, index, operation, rounds)
    finally:
        # While it was switched off it has missed changes.
        server.execute(target.url, f"DROP INDEX {CANDIDATE}" if definition else f"REINDEX INDEX {index}")


def table(results: dict[str, dict[str, Any]]) -> str:
    """For a terminal: without the index -> with it."""
    columns = {name: f"{name}, ms" for name in (*CHANGES, "heavy", "busy")} | {"update, bytes": "update, bytes"}
    lines = [f"{'without -> with the index':28}{'MB':>6}" + "".join(f"{title:>20}" for title in columns.values())]
    for name, one in results.items():
        cells = "".join(f"{one[column][0]:>9.5g} ->{one[column][1]:>8.5g}" for column in columns)
        lines.append(f"{name:28}{one['megabytes']:>6}{cells}   {one['reads']}")
    return "\n".join(lines)


@click.command()
@click.option("--tasks", default=10_000_000, show_default=True)
@click.option("--rounds", default=5, show_default=True, help="With and without the index, each.")
@click.option("--only", default="", help="Only indexes whose name has this in it.")
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
            names = [name for name in CANDIDATES if only in name]
            with click.progressbar(names, label="indexes", item_show_func=lambda name: name) as todo:
                results = {name: try_candidate(target, name, rounds) for name in todo}
    click.echo(table(results))
    if file:
        file.write_text(json.dumps(results, indent=1) + os.linesep)


if __name__ == "__main__":
    main()

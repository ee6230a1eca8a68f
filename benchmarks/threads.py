"""How many threads a process should have: what it answers with each number of them, the database near and far.

Threads share one interpreter, so that more of them help only as long as they wait for the database. The far one is the
same, with some milliseconds added to each round trip, as between two data centres of a region.
"""

import time
from collections import Counter, defaultdict
from contextlib import closing
from typing import Any

import click
import psycopg2
from psycopg2.extensions import parse_dsn

from benchmarks.delay import delayed
from benchmarks.stage import MIXED, Stage, middle
from tests.servers import dsn_url

FAR = 0.005
CONNECTIONS = 40


def measure(stage: Stage) -> dict[str, Any]:
    """Requests a second for each number of threads; rounds with all numbers meet the same noise."""
    target = parse_dsn(stage.url)
    runs: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    with delayed(target, FAR) as port:
        urls = {"near": stage.url, "far": dsn_url({**target, "host": "127.0.0.1", "port": str(port)})}
        trips = {place: round_trip(url) for place, url in urls.items()}
        todo = [(place, threads) for _ in range(stage.size.rounds) for threads in stage.size.threads for place in urls]
        with click.progressbar(todo, label="threads", item_show_func=lambda one: one and f"{one[1]}, {one[0]}") as bar:
            for place, threads in bar:
                number = str(threads)
                settings = {"WEB_CONCURRENCY": "1", "WEB_THREADS": number, "DB_POOL_SIZE": number}
                with stage.service(settings | {"DATABASE_URL": urls[place]}) as service:
                    runs[place, threads] += [stage.load(service, MIXED, CONNECTIONS)]
    return {
        "round_trip": trips,
        "connections": CONNECTIONS,
        "results": [summary(*key, all) for key, all in sorted(runs.items())],
    }


def summary(place: str, threads: int, runs: list[dict[str, Any]]) -> dict[str, Any]:
    figures = {name: middle(one[name] for one in runs) for name in ("per_second", "p50", "p99")}
    errors = sum((Counter(one["errors"]) for one in runs), Counter())
    rates = [one["per_second"] for one in runs]
    return {"place": place, "threads": threads, "runs": rates, "errors": errors} | figures


def round_trip(url: str) -> float:
    """The milliseconds of the shortest statement."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        took = []
        for _ in range(40):
            began = time.perf_counter()
            cursor.execute("SELECT 1")
            took.append((time.perf_counter() - began) * 1000)
    return middle(took, 2)


def table(measured: dict[str, Any]) -> str:
    trips = measured["round_trip"]
    places = {place: f"{place} ({trip} ms)" for place, trip in trips.items()}
    lines = [f"{'requests/s, p99 ms; threads':28}" + "".join(f"{title:>22}" for title in places.values())]
    found = {(one["place"], one["threads"]): one for one in measured["results"]}
    for threads in sorted({threads for _, threads in found}):
        cells = [found[place, threads] for place in places]
        lines.append(f"{threads:28}" + "".join(f"{one['per_second']:14.0f}{one['p99']:8.0f}" for one in cells))
    return "\n".join(lines)

"""The benchmarks run, in small; what they measure is no matter here."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import run_sql
from todo_service.config import ROOT

SECONDS = 180


def databases(server: str) -> set[str]:
    sql = "SELECT datname FROM pg_database WHERE datname ~ '^(growth|load)_'"
    return {name for (name,) in run_sql(server, sql)}


@pytest.fixture(scope="module")
def results(database_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `make bench` writes as JSON, run as its user runs it."""
    if not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"):
        pytest.skip("nginx is not installed (Debian package: nginx-light)")
    before, folder = databases(database_server), tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "benchmarks", "--smoke", f"--server={database_server}", f"--out={folder}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert databases(database_server) == before
    assert {file.name for file in folder.glob("*.svg")} == {"growth.svg", "threads.svg"}
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}


def test_growth(results: dict[str, Any]) -> None:
    growth = results["growth"]
    assert growth["tasks"]["large"] >= 2000
    times = {one["name"]: one["times"] for one in growth["results"]}
    assert len(times) > 60
    for one in times.values():
        assert set(one) == {"small", "ordinary", "busy", "heavy"}
        assert all(times["request"] > 0 and times["statement"] > 0 and times["pages"] > 0 for times in one.values())


def test_writes(results: dict[str, Any]) -> None:
    assert set(results["writes"]) == {"both"}
    found = results["writes"]["both"]
    for change in ("create", "update", "complete"):
        assert min(found[change]) > 0
        assert min(found[f"{change}, bytes"]) > 0
    # Every change of a task changes something that an index has; without these indexes, none does.
    as_it_is, otherwise = found["update, heap-only"]
    assert as_it_is == 0 < otherwise


@pytest.mark.parametrize("name", ["load", "threads", "scaling", "settings", "cost"])
def test_under_load(results: dict[str, Any], name: str) -> None:
    assert results[name]["results"]
    for one in results[name]["results"]:
        assert one["per_second"] > 0
        assert 0 < one["p50"] <= one["p99"]
        assert not any(one["errors"].values())


def test_load(results: dict[str, Any]) -> None:
    works = {one["work"]: set(one["kinds"]) for one in results["load"]["results"]}
    kinds = {"list", "get", "update", "create"}
    assert set(works) == {"mixed", *kinds}
    assert all(works[kind] == {kind} for kind in kinds)


def test_far_databases_are_far(results: dict[str, Any]) -> None:
    trips = results["threads"]["round_trip"]
    assert trips["1 ms"] >= 1
    assert trips["5 ms"] >= 5
    assert trips["near"] < trips["5 ms"]


def test_settings(results: dict[str, Any]) -> None:
    found = {(one["kind"], one["way"]) for one in results["settings"]["results"]}
    ways = ("both on", "DB_PREPARE=off", "WEB_AFFINITY=off")
    assert found == {(kind, way) for kind in ("list", "get", "update", "create") for way in ways}


def test_cost(results: dict[str, Any]) -> None:
    cost = results["cost"]
    assert cost["start_ms"] > 0
    assert cost["import_ms"] > 0
    assert min(cost["worker_idle_mb"], cost["worker_after_load_mb"], cost["master_mb"]) > 1

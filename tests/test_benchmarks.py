"""The benchmarks run, in small; what they measure is no matter here."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import run_sql
from todo_service.config import ROOT

SECONDS = 120


def run(module: str, folder: Path, *options: str) -> Any:
    """What a benchmark writes as JSON, run as its user runs it."""
    file = folder / "results.json"
    command = [sys.executable, "-m", f"benchmarks.{module}", "--tasks=2000", "--rounds=1", f"--json={file}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())


def databases(server: str) -> set[str]:
    return {name for (name,) in run_sql(server, "SELECT datname FROM pg_database WHERE datname LIKE 'growth%'")}


def test_growth(database_server: str, tmp_path: Path) -> None:
    before = databases(database_server)
    results = run("growth", tmp_path, f"--server={database_server}")
    assert results["tasks"]["large"] >= 2000
    times = {one["name"]: one["times"] for one in results["results"]}
    assert len(times) > 60
    for one in times.values():
        assert set(one) == {"small", "ordinary", "busy", "heavy"}
        assert all(times["request"] > 0 and times["statement"] > 0 and times["pages"] > 0 for times in one.values())
    assert databases(database_server) == before


def test_writes(database_server: str, tmp_path: Path) -> None:
    before = databases(database_server)
    results = run("writes", tmp_path, f"--server={database_server}", "--only=title")
    assert set(results) == {"by title"}
    for change in ("create", "update", "complete"):
        for figure in (change, f"{change}, bytes"):
            without, with_index = results["by title"][figure]
            assert min(without, with_index) > 0
    assert databases(database_server) == before

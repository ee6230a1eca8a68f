"""Requests of all kinds, made by Schemathesis from the service's own document: the answers are what it says.

Valid requests and invalid ones, alone and in sequences that use what earlier ones have made, by two users who must not
see each other's tasks. All of its checks are on; what it needs to know besides stands in `schemathesis_hooks.py`.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import FUZZ, SECRET, token
from tests.support.live import Service
from todo_service import cli
from todo_service.config import ROOT

# For each operation in each phase; the same ones in each run, but for `make fuzz`.
BUDGET = ["--max-examples=300"] if FUZZ else ["--max-examples=10", "--seed=1"]
ORDER_OF_SETS = {} if FUZZ else {"PYTHONHASHSEED": "0"}
COMMAND = [
    sys.executable,
    "-m",
    "schemathesis.cli",
    "--config-file=tests/support/schemathesis.toml",
    "run",
    "--checks=all",
]


@pytest.fixture(scope="module")
def service(make_database: Callable[[], str]) -> Iterator[Service]:
    url = make_database()
    cli.upgrade(url)
    with Service(url, SECRET, RATELIMIT_DEFAULT="1000000/minute") as service:
        yield service
        assert "Traceback" not in service.log


def run(service: Service, folder: Path, secret: str, *options: str, **environment: str) -> None:
    """Run Schemathesis as alice and bob, whose tokens are signed with `secret`. It must find nothing."""
    users = folder / "users.json"
    headers = {name: {"name": "Authorization", "value": f"Bearer {token(name, secret)}"} for name in ("alice", "bob")}
    users.write_text(json.dumps({"auth": [{"name": name, "fixedHeaders": [headers[name]]} for name in headers]}))
    done = subprocess.run(
        [*COMMAND, *BUDGET, *options, f"{service.url}/api/openapi.json"],
        cwd=ROOT,
        env=os.environ | ORDER_OF_SETS | {"USERS": str(users)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Of what hangs: on a busy machine it takes minutes.
        timeout=1800 if FUZZ else 600,
    )
    assert done.returncode == 0, done.stdout


def test_answers_are_what_the_document_says(service: Service, tmp_path: Path) -> None:
    run(service, tmp_path, SECRET)


def test_strangers_are_refused(service: Service, tmp_path: Path) -> None:
    run(service, tmp_path, secrets.token_urlsafe(32), "--phases=examples,coverage", STRANGERS="1")

"""The audit of the dependencies fails when it finds something, and when it could not have (OWASP ASVS 15.2.1).

And the bill of materials names them all.
"""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.advisories import CANARY, pins, problems
from tests.support.keyserver import send
from tests.support.servers import free_port
from todo_service.config import ROOT

HASH = f"--hash=sha256:{'0' * 64}"
GOOD = f"flask==3.0.0 \\\n    {HASH}\nPyJWT[crypto]==2.9.0 {HASH}\n"
CLEAN: dict[str, Any] = {}
VULNERABLE = {"vulns": [{"id": "PYSEC-1", "affected": []}]}


class Advisories(ThreadingHTTPServer):
    """Speaks the protocol of osv.dev: `known` says what it answers for a package, and `status` how."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.known: dict[str, Any] = {CANARY[0]: VULNERABLE}
        self.status = 200


class Answer(BaseHTTPRequestHandler):
    server: Advisories

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = self.server.known.get(query["package"]["name"], CLEAN)
        send(self, self.server.status, json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def advisories() -> Iterator[Advisories]:
    with Advisories() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def audit(folder: Path, text: str, port: int) -> list[str]:
    file = folder / "requirements.txt"
    file.write_text(text)
    url = f"http://127.0.0.1:{port}/v1/query"
    return problems([file], ["--vulnerability-service=osv", f"--osv-url={url}", "--timeout=5"])


@pytest.mark.parametrize(
    ("text", "known", "status", "found"),
    [
        pytest.param(GOOD, {}, 200, [], id="all is well"),
        pytest.param(GOOD, {"pyjwt": VULNERABLE}, 200, ["pyjwt 2.9.0: PYSEC-1"], id="a vulnerability"),
        pytest.param("", {}, 200, ["nothing is pinned"], id="an empty file"),
        pytest.param(GOOD, {"django": CLEAN}, 200, ["the advisories lack"], id="no advisories"),
        pytest.param(GOOD, {}, 404, ["pip-audit failed"], id="packages that are not found"),
        pytest.param("flask\n", {}, 200, ["pip-audit failed"], id="not pinned"),
    ],
)
def test_audit(
    tmp_path: Path, advisories: Advisories, text: str, known: dict[str, Any], status: int, found: list[str]
) -> None:
    advisories.known |= known
    advisories.status = status
    told = audit(tmp_path, text, advisories.server_port)
    assert len(told) == len(found)
    assert all(one.startswith(start) for one, start in zip(told, found, strict=True))


def test_audit_without_a_service(tmp_path: Path) -> None:
    assert audit(tmp_path, GOOD, free_port()) == ["pip-audit failed (exit code 1)"]


def test_everything_pinned_has_a_hash_and_is_audited() -> None:
    for name, least in (("requirements.txt", 10), ("requirements-run.txt", 3), ("requirements-dev.txt", 10)):
        text = (ROOT / name).read_text()
        packages = [block for block in text.replace("\\\n", "").splitlines() if block.strip() and block[0] not in " #"]
        assert len(packages) == len(pins([ROOT / name])) > least
        assert all("==" in package and "--hash=sha256:" in package for package in packages)
        assert name in (ROOT / "Makefile").read_text().partition("tests.support.advisories")[2].partition("\n")[0]


def test_bill_of_materials() -> None:
    """All that is pinned and no more, each with its licence, and what needs what."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(["make", "sbom"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    bill = json.loads((ROOT / "sbom.json").read_text())
    listed = {(re.sub(r"[-_.]+", "-", one["name"]).lower(), one["version"]) for one in bill["components"]}
    assert listed == pins([ROOT / "requirements.txt"])
    assert [one["name"] for one in bill["components"] if not one.get("licenses")] == []
    assert {one["ref"].partition("==")[0] for one in bill["dependencies"] if one.get("dependsOn")} >= {
        "Flask",
        "limits",
    }

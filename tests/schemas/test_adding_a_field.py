"""docs/adding-a-field.md, followed step by step in a copy of the project: the service has the field, and tests pass."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SECRET, token
from tests.support.live import KEPT, Connection, Service
from todo_service.config import ROOT
from todo_service.db.models import REVISION

# A file's name on a line of its own, or a block of code.
PART = re.compile(r"^`([\w./]+)`:$|^```(\w+)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


def blocks() -> Iterator[tuple[str, str, str]]:
    """The page's blocks: file, language, text. Its migration has the number that is next by now."""
    page = (ROOT / "docs" / "adding-a-field.md").read_text()
    page = page.replace("0009", f"{int(REVISION) + 1:04}").replace('"0008"', f'"{REVISION}"')
    file = ""
    for named, language, text in PART.findall(page):
        file = named or file
        if language:
            yield file, language, text


def put_in(path: Path, language: str, text: str) -> None:
    """Carry a block out: a change of what stands in the file once, or a new file."""
    if language != "diff":
        assert not path.exists(), path
        path.write_text(text)
        return
    lines = text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    there = path.read_text()
    assert f"\n{there}".count(f"\n{before}") == 1, f"{path.name} has not once:\n{before}"
    path.write_text(f"\n{there}".replace(f"\n{before}", f"\n{after}")[1:])


def run(project: Path, *command: str, **environment: str) -> None:
    environment |= {name: os.environ[name] for name in KEPT if name in os.environ}
    command = (sys.executable, "-m", *command)
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which the page's steps are done."""
    folder = tmp_path_factory.mktemp("with-a-field") / "project"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".*", "__pycache__", "node_modules", "instance"))
    for file, language, text in blocks():
        put_in(folder / file, language, text)
    return folder


@pytest.fixture(scope="module")
def url(project: Path, make_database: Callable[[], str]) -> str:
    url = make_database()
    run(project, "flask", "--app", "wsgi", "migrate", DATABASE_URL=url, BETTER_AUTH_SECRET=SECRET)
    return url


def test_the_service_has_the_field(project: Path, url: str) -> None:
    serve = ["env", "-C", str(project), sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    with Service(url, SECRET, serve) as service, Connection(service.url, token("alice")) as alice:
        create = {"title": "Water the plants", "estimate": 30, "due_date": "2026-12-31", "recurrence": "daily"}
        task = alice.request("POST", "/api/tasks", create).json
        path = f"/api/tasks/{task['id']}"
        assert alice.request("GET", path).json["estimate"] == task["estimate"] == 30
        assert [task["estimate"] for task in alice.request("GET", "/api/tasks").json] == [30]
        assert alice.request("PATCH", path, {"title": "Water the ferns"}).json["estimate"] == 30
        assert alice.request("PATCH", path, {"estimate": None}).json["estimate"] is None
        assert alice.request("PATCH", path, {"estimate": 45}).json["estimate"] == 45
        assert alice.request("PATCH", path, {"estimate": -1}).status == 422
        alice.request("PATCH", f"{path}/complete", {"completed": True})
        # The task, and its next occurrence, which has a copy.
        assert [task["estimate"] for task in alice.request("GET", "/api/tasks").json] == [45, 45]
        batch = {"operations": [{"op": "create", "task": {"title": "Two", "estimate": 1}}]}
        assert alice.request("POST", "/api/tasks/batch", batch).json["results"][0]["task"]["estimate"] == 1
        changes = alice.request("GET", "/api/tasks/changes").json["changes"]
        assert sorted(change["task"]["estimate"] for change in changes) == [1, 45, 45]
        copies(service, alice, "json", "application/json")
        copies(service, alice, "csv", "text/csv")
        documented(alice.request("GET", "/api/openapi.json").json["components"]["schemas"])


def copies(service: Service, alice: Connection, form: str, kind: str) -> None:
    """Another user who imports what `alice` exports has the field too."""
    file = alice.request("GET", f"/api/tasks/export?format={form}").body
    with Connection(service.url, token(f"bob-{form}")) as bob:
        assert bob.request("POST", "/api/tasks/import", file, Content_Type=kind).json == {"created": 3, "skipped": 0}
        assert sorted(task["estimate"] for task in bob.request("GET", "/api/tasks").json) == [1, 45, 45]


def documented(schemas: dict[str, Any]) -> None:
    for name in ("TaskCreate", "TaskUpdate", "ImportTask", "Task", "ExportTask"):
        described = schemas[name]["properties"]["estimate"]
        assert (described["type"], described["example"]) == (["integer", "null"], 30), json.dumps(described)


def test_tests_pass_with_the_field(project: Path, url: str) -> None:
    """Those that list the fields, and the one that compares models and migrations."""
    about = "whole_task or field_is_kept or bad_value_is_refused or fast_way_out or loses or what_the_models_say"
    files = [
        f"tests/{name}.py" for name in ("api/test_tasks", "api/test_openapi", "api/test_transfer", "db/test_database")
    ]
    run(project, "pytest", *files, "-k", about, TEST_DATABASE_URL=url)

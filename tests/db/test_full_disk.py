"""A database that has no room left: that is what is said, and no connection is given up for it.

The disk is a real one that is full, a small file system in memory with the database's tables on it; what else a server
may refuse in the same way is raised by a trigger.
"""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import psycopg2
import pytest

from tests.conftest import assert_problem, run_sql, settings_for, user_of
from todo_service import cli, create_app

SMALL, LARGER = "24m", "32m"


class Disk(NamedTuple):
    """A disk with little room, and the address of a database that has its tables on it."""

    folder: Path
    url: str

    def enlarge(self) -> None:
        subprocess.run(["mount", "-o", f"remount,size={LARGER}", self.folder], check=True)


@pytest.fixture
def disk(database_server: str) -> Iterator[Disk]:
    folder = Path(tempfile.mkdtemp(prefix="todo-disk-"))
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "none", folder], capture_output=True).returncode:
        folder.rmdir()
        pytest.skip("no file system can be mounted here (root may do so)")
    name = folder.name.replace("-", "_")
    try:
        folder.chmod(0o755)
        place = folder / "tables"
        place.mkdir(mode=0o700)
        shutil.chown(place, Path(run_sql(database_server, "SHOW data_directory")[0][0]).owner())
        run_sql(database_server, f"CREATE TABLESPACE {name} LOCATION '{place}'")
        run_sql(database_server, f"CREATE DATABASE {name} TABLESPACE {name}")
        yield Disk(folder, urlunsplit(urlsplit(database_server)._replace(path=f"/{name}")))
        run_sql(database_server, f"DROP DATABASE {name} WITH (FORCE)")
        run_sql(database_server, f"DROP TABLESPACE {name}")
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


CONNECTIONS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'todo_service' ORDER BY pid
"""


def connections(url: str) -> list[int]:
    """The server's processes for the service's connections."""
    return [pid for (pid,) in run_sql(url, CONNECTIONS)]


def test_a_full_disk_is_told_as_such_and_costs_no_connection(disk: Disk, capfd: pytest.CaptureFixture[str]) -> None:
    cli.upgrade(disk.url)
    app = create_app(settings_for(disk.url, pool_size=1))
    user = user_of(app, "carol")
    task = user.create("kept")
    # Open from the start: for a new one, the server may have to write a file.
    watcher = psycopg2.connect(disk.url)
    watcher.autocommit = True

    def now() -> list[int]:
        with watcher.cursor() as cursor:
            cursor.execute(CONNECTIONS)
            return [pid for (pid,) in cursor.fetchall()]

    before = now()
    assert len(before) == 1
    for _ in range(200):
        # Random, as what is all the same would be compressed.
        tasks = [{"title": "x", "description": secrets.token_hex(1000)} for _ in range(100)]
        response = user.post("/api/tasks/batch", json={"operations": [{"op": "create", "task": t} for t in tasks]})
        if response.status_code != 200:
            break
    assert "no room" in assert_problem(response, 503, "unavailable")["detail"]
    assert response.headers["Retry-After"]
    assert "No space left on device" in capfd.readouterr().err
    assert now() == before
    # What needs no room goes on, and so does everything where there is some again.
    assert user.get(f"/api/tasks/{task['id']}").json == task
    assert user.get("/health/ready").status_code == 200
    disk.enlarge()
    user.create("again")
    assert now() == before
    watcher.close()


REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'refused: %', NEW.title USING ERRCODE = NEW.title; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON tasks FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("53000", "no room"),
        ("53100", "no room"),
        ("53200", "no room"),
        ("53400", "no room"),
        ("58030", "disk"),
        ("40P01", "nothing was changed"),
    ],
)
@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/batch"])
def test_what_the_server_refuses_costs_no_connection(refusing: str, code: str, said: str, path: str) -> None:
    user = user_of(create_app(settings_for(refusing, pool_size=1)), "carol")
    assert user.get("/api/tasks").json == []
    before = connections(refusing)
    response = user.post(path, json={"title": code, "operations": [{"op": "create", "task": {"title": code}}]})
    assert said in assert_problem(response, 503, "unavailable")["detail"]
    assert "lost" not in response.json["detail"]
    assert user.get("/api/tasks").json == []
    assert connections(refusing) == before


@pytest.fixture(scope="module")
def refusing(make_database: Callable[[], str]) -> str:
    """A database that refuses a task with the SQLSTATE that is its title."""
    url = make_database()
    cli.upgrade(url)
    run_sql(url, REFUSE)
    return url

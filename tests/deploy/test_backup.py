"""docs/backup.md, followed with two real servers while others write: what is there then, and what clients meet."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from secrets import token_hex

import pytest
from psycopg2.extensions import parse_dsn

from tests.conftest import SECRET, run_sql, token
from tests.support.compose import psql
from tests.support.ledger import audit
from tests.support.live import Connection, Service
from tests.support.load import Client, writers, writing
from tests.support.pages import commands, shell
from tests.support.servers import MissingProgram, dsn_url, postgres_server
from todo_service import cli
from todo_service.config import ROOT

DUMP, RESTORE, RENEW = commands("backup.md")
WRITERS = 8
KNOWN = "SELECT id::text, version FROM tasks UNION ALL SELECT id::text, version FROM tombstones"


@dataclass
class Database:
    """On a server of its own. `owner`, `service`: the addresses of the roles that migrate and that serve."""

    owner: str
    service: str


@contextmanager
def database(owner: str, password: str) -> Iterator[Database]:
    with postgres_server() as server:
        # PostgreSQL lets nobody else give BYPASSRLS away before 16.
        run_sql(server.dsn, f"CREATE ROLE {owner} SUPERUSER LOGIN PASSWORD '{password}'")
        run_sql(server.dsn, f"CREATE DATABASE tasks OWNER {owner}")
        address = parse_dsn(server.dsn) | {"dbname": "tasks", "password": password}
        yield Database(*(dsn_url(address | {"user": user}) for user in (owner, "todo_service")))


def acknowledged(clients: list[Client]) -> int:
    return sum(client.ledger.acknowledged for client in clients)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what the page's commands need, for what they write."""
    for name in ("deploy", "wsgi.py", "todo_service", "migrations"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_what_was_acknowledged_is_restored_and_no_tag_or_token_means_something_else(project: Path) -> None:
    password = token_hex(8)
    try:
        with database("owner_once", password) as old, database("owner_now", password) as new:
            addresses = {
                "OWNERS_DATABASE_URL": old.owner,
                "NEW_OWNERS_DATABASE_URL": new.owner,
                "NEW_DATABASE_URL": new.service,
                "SERVICE_PASSWORD": password,
            }
            follow(old, new, partial(shell, environment=addresses, folder=project))
    except MissingProgram as missing:
        pytest.skip(str(missing))


def follow(old: Database, new: Database, run: Callable[[str], str]) -> None:
    done = psql(old.owner, ROOT / "deploy" / "roles.sql", SERVICE_PASSWORD=parse_dsn(old.service)["password"])
    assert done.returncode == 0, done.stderr
    cli.upgrade(old.owner)
    alice = token("alice")
    with Service(old.service, SECRET, RATELIMIT_DEFAULT="1000000/minute") as service:
        with Connection(service.url, alice) as client:
            path = f"/api/tasks/{client.request('POST', '/api/tasks', {'title': 'Buy milk'}).json['id']}"
            tag = client.request("GET", path).headers["ETag"]
            page = client.request("GET", "/api/tasks").headers["ETag"]
            since = client.request("GET", "/api/tasks/changes").json["next"]
        before, meanwhile = writers(WRITERS, service.url), writers(WRITERS, service.url)
        with writing(before):
            pass
        with writing(meanwhile):
            versions = {task.id: task.version for one in meanwhile for task in list(one.ledger.tasks)}
            so_far = acknowledged(meanwhile)
            run(DUMP)
            assert acknowledged(meanwhile) > so_far + WRITERS, "hardly anything was written during the dump"
        with Connection(service.url, alice) as client:
            lost = client.request("PATCH", path, {"title": "Buy oat milk"}).headers["ETag"]
    assert run(RESTORE) == ""
    assert audit(new.owner, [client.ledger for client in before]) == ([], [])
    there = dict(run_sql(new.owner, KNOWN))
    assert len(versions) > WRITERS
    assert {id: version for id, version in versions.items() if there.get(id, 0) < version} == {}
    assert f"{WRITERS + 1} users renewed" in run(RENEW)
    with Service(new.service, SECRET) as service, Connection(service.url, alice) as client:
        assert client.request("GET", path, If_None_Match=tag).status == 200
        assert client.request("GET", "/api/tasks", If_None_Match=page).status == 200
        assert client.request("GET", f"/api/tasks/changes?since={since}").status == 410
        # What the other server said of another title, in the same version.
        assert client.request("PATCH", path, {"title": "Too late"}, If_Match=lost).status == 412
        again = client.request("PATCH", path, {"title": "Buy soy milk"})
        assert again.json["version"] == int(lost.strip('"').partition("-")[0])
        assert client.request("PATCH", path, {"title": "Too late"}, If_Match=lost).status == 412
        assert client.request("GET", path, If_None_Match=lost).json["title"] == "Buy soy milk"

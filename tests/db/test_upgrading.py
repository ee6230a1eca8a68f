"""Upgrading while it serves: the previous release's code, from git, goes on with each newer schema, and beside ours.

It knows nothing older than the schema that it was released with. What came before was never served by a release;
`test_cli` takes tasks through all of it.
"""

import io
import re
import select
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest

from tests.cli.test_cli import invoke, run
from tests.conftest import SECRET, run_sql, settings_for, token, wait_for
from tests.support.ledger import audit
from tests.support.live import Connection, Service
from tests.support.load import Client, wait_for_more, writers, writing
from todo_service import cli, create_app
from todo_service.config import ROOT

pytestmark = pytest.mark.timed

VERSIONS = ROOT / "migrations" / "versions"
# The first of the revisions that the previous release does not know, as CHANGELOG.md has it.
FIRST = re.findall(r"\(revisions? (\d{4})", (ROOT / "CHANGELOG.md").read_text())[0]
REVISIONS = sorted(path.name[:4] for path in VERSIONS.glob("*.py"))
KNOWN = [revision for revision in REVISIONS if revision < FIRST][-1]
NEWER = [revision for revision in REVISIONS if revision >= FIRST]
NONCES = "SELECT count(*), count(DISTINCT nonce), min(length(nonce)) FROM owners"
CLIENTS = 8
REVISION = "SELECT version_num FROM alembic_version"
SECONDS = 60


def git(*arguments: str) -> bytes:
    # The folder may be another user's, as where it is mounted into a container.
    command = ["git", "-c", f"safe.directory={ROOT}", *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False).stdout


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code before the first migration that came after the previous release."""
    added = git("log", "--diff-filter=A", "--format=%H", "--", f"migrations/versions/{FIRST}_*").decode().split()
    archive = git("archive", f"{added[-1]}^") if added else b""
    if not archive:
        pytest.fail("The previous release is not to be had: this needs git, and a clone with all of the history.")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    assert max(path.name[:4] for path in (folder / "migrations" / "versions").glob("*.py")) == KNOWN
    return folder


@pytest.fixture
def url(make_database: Callable[[], str], previous: Path) -> str:
    """A database as the previous release has made it."""
    url = make_database()
    done = run(url, "migrate", project=previous)
    assert done.returncode == 0, done.stderr
    return url


def serve(url: str, project: Path = ROOT) -> Service:
    return Service(url, SECRET, project=str(project), RATELIMIT_DEFAULT="1000000/minute")


@contextmanager
def unfailing(url: str, clients: list[Client]) -> Iterator[None]:
    """They work meanwhile; every request of theirs is answered, and what it says is so."""
    with writing(clients):
        yield
    attempts = {attempt for client in clients for attempt in client.attempts}
    assert {attempt.error for attempt in attempts} == {""}
    assert audit(url, [client.ledger for client in clients]) == ([], [])


def migrate(url: str, revision: str) -> None:
    invoke(create_app(settings_for(url)), "migrate", "--to", revision, "--yes")
    assert run_sql(url, REVISION) == [(revision,)]


def test_the_previous_release_goes_on_with_each_newer_schema_forth_and_back(url: str, previous: Path) -> None:
    back = [KNOWN, *NEWER[:-1]][::-1]
    with serve(url, previous) as service:
        clients = writers(CLIENTS, service.url)
        with unfailing(url, clients):
            for revision in (*NEWER, *back, NEWER[-1]):
                migrate(url, revision)
                wait_for_more(clients)
    [(owners, nonces, length)] = run_sql(url, NONCES)
    assert (nonces, length) == (owners, 12)


def test_both_releases_serve_the_same_users(url: str, previous: Path) -> None:
    """As while replicas are replaced one by one."""
    with serve(url, previous) as old:
        migrate(url, REVISIONS[-1])
        with serve(url) as new:
            clients = writers(CLIENTS, old.url, new.url)
            with unfailing(url, clients):
                wait_for_more(clients)
            ledger = clients[0].ledger
            known = {task.title for task in ledger.tasks if task.state.place == "list"}
            with Connection(new.url, token(ledger.user)) as client:
                told = client.request("GET", "/api/tasks?limit=1000").json
            assert known <= {task["title"] for task in told}
            assert {(task["category"], *task["checklist"]) for task in told if task["title"] in known} == {(None,)}


def test_a_migration_behind_a_long_transaction_holds_nobody_up(url: str, previous: Path) -> None:
    """Such as a dump, which has a lock on all tables: whoever comes later would wait behind who waits for it."""
    with serve(url, previous) as service, psycopg2.connect(url) as dump, dump.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM tasks, owners")
        clients = writers(CLIENTS, service.url)
        with unfailing(url, clients), start(url) as migrating:
            said = migrating.stderr
            assert said
            wait_for(lambda: select.select([said], [], [], 0)[0], "it waits, and lets others wait", SECONDS)
            assert b"in use by a long transaction" in said.readline()
            for _ in range(3):
                wait_for_more(clients)
            assert run_sql(url, REVISION) == [(KNOWN,)]
            dump.rollback()
            assert migrating.wait(SECONDS) == 0
            wait_for_more(clients)
    assert run_sql(url, REVISION) == [(REVISIONS[-1],)]


def test_indexes_on_tables_in_use_are_built_concurrently() -> None:
    for path in VERSIONS.glob("*.py"):
        # The first one makes the tables.
        if path.name[:4] > "0001":
            text = path.read_text()
            assert not re.search(r"CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)|create_index", text), path.name


def test_an_index_is_built_while_others_write(make_database: Callable[[], str]) -> None:
    """And while another process waits until it may migrate, too."""
    url = make_database()
    cli.upgrade(url, "0002")
    insert = "INSERT INTO tasks (user_id, id, title, title_key, position, version) "
    insert += "VALUES ('alice', gen_random_uuid(), 'Buy milk', 'buy milk', 1, 1)"
    waiting = "SELECT 1 FROM pg_stat_activity WHERE query ~ '^CREATE INDEX CONCURRENTLY' AND wait_event_type = 'Lock'"
    with psycopg2.connect(url) as early, early.cursor() as cursor:
        cursor.execute(insert)
        with start(url) as one, start(url) as other:
            wait_for(lambda: run_sql(url, waiting), "no index is being built", SECONDS)
            run_sql(url, f"SET lock_timeout = '1s'; {insert}")
            assert (one.poll(), other.poll()) == (None, None)
            early.commit()
            assert [process.wait(SECONDS) for process in (one, other)] == [0, 0]
    assert run_sql(url, REVISION) == [(REVISIONS[-1],)]


def test_each_owner_gets_a_nonce(make_database: Callable[[], str]) -> None:
    """Of a few thousand, of which a try that was cut off has seen to none."""
    url = make_database()
    cli.upgrade(url, "0004")
    run_sql(url, "INSERT INTO owners (user_id) SELECT 'user-' || n FROM generate_series(1, 2500) AS n")
    run_sql(url, "ALTER TABLE owners ADD COLUMN nonce text NOT NULL DEFAULT ''")
    migrate(url, "0005")
    assert run_sql(url, NONCES) == [(2500, 2500, 12)]


@pytest.mark.parametrize(("revision", "name"), [("0002", "answers_by_age"), ("0003", "tasks_by_creation_next")])
def test_an_index_that_was_cut_off_is_built_anew(make_database: Callable[[], str], revision: str, name: str) -> None:
    url = make_database()
    cli.upgrade(url)
    indexes = "SELECT indexdef, indisvalid FROM pg_indexes JOIN pg_index ON indexrelid = indexname::regclass ORDER BY 1"
    made = run_sql(url, indexes)
    migrate(url, f"{int(revision) - 1:04}")
    run_sql(url, f"CREATE INDEX {name} ON tasks (title)")
    migrate(url, REVISIONS[-1])
    assert run_sql(url, indexes) == made


@contextmanager
def start(url: str) -> "Iterator[subprocess.Popen[bytes]]":
    """`flask migrate` under way."""
    environment = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET}
    command = [sys.executable, "-m", "flask", "--app", "wsgi", "migrate"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()

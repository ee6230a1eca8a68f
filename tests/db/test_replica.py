"""Reads from a replica (DATABASE_READ_URL): a real one, that follows a real primary and lags as far behind as is asked.

Whatever it lags, users see what they have changed.
"""

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from flask import Flask

from tests.cli.test_cli import invoke
from tests.conftest import User, again, assert_problem, run_sql, settings_for, user_of, wait_for
from tests.support.servers import MissingProgram, Server, free_port, postgres_server, replica_server
from tests.support.wire import Wire
from todo_service import cli, create_app
from todo_service.db import replica as replicas

# What is read from a replica: the path, and what of its answer tells how many tasks there are.
READS: dict[str, Callable[[Any], int]] = {
    "/api/tasks": len,
    "/api/tasks?status=all&sort=title&count=true": len,
    "/api/tasks/stats": lambda answer: int(answer["total"]),
    "/api/tasks/changes": lambda answer: len(answer["changes"]),
    "/api/tasks/export": lambda answer: len(answer["tasks"]),
}


class Pair(NamedTuple):
    """A primary, and a replica behind a proxy that sees what it is asked."""

    primary: Server
    replica: Server
    wire: Wire

    def app(self) -> Flask:
        return create_app(settings_for(self.primary.dsn, read_url=self.wire.dsn(), pool_size=8))

    def pause(self) -> None:
        """Let the replica stay as it is."""
        run_sql(self.replica.dsn, "SELECT pg_wal_replay_pause()")
        paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        wait_for(lambda: run_sql(self.replica.dsn, paused) == [(True,)], "the replica goes on")

    def resume(self) -> None:
        run_sql(self.replica.dsn, "SELECT pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Return when the replica has all that the primary has now."""
        [(here,)] = run_sql(self.primary.dsn, "SELECT pg_current_wal_insert_lsn()")
        behind = "SELECT pg_last_wal_replay_lsn() >= %(here)s"
        wait_for(lambda: run_sql(self.replica.dsn, behind, {"here": here}) == [(True,)], "the replica stays behind")

    def asked(self) -> list[str]:
        """What the replica was asked for since `wire.reset()`, whose answers may have gone to a client."""
        return [sql for sql in self.wire.queries if "FROM tasks" in sql]


@pytest.fixture(scope="module")
def servers() -> Iterator[Pair]:
    try:
        with postgres_server() as primary:
            cli.upgrade(primary.dsn)
            with replica_server(primary.dsn) as replica, Wire(replica.dsn) as wire:
                yield Pair(primary, replica, wire)
    except MissingProgram as missing:
        pytest.skip(str(missing))


@pytest.fixture
def pair(servers: Pair) -> Iterator[Pair]:
    yield servers
    servers.wire.release()
    servers.resume()


@pytest.fixture
def carol(pair: Pair) -> User:
    """Somebody with two tasks, which the replica has; it has been asked once."""
    user = user_of(pair.app(), "carol")
    user.create("one")
    user.create("two")
    pair.catch_up()
    assert len(user.titles()) == 2
    pair.wire.reset()
    return user


@pytest.mark.parametrize("path", READS)
def test_what_is_much_to_read_comes_from_the_replica(pair: Pair, carol: User, path: str) -> None:
    there = carol.get(path)
    assert READS[path](there.json) == 2
    assert pair.asked()
    primary = User(carol.id, create_app(settings_for(pair.primary.dsn)).test_client(), carol.token)
    here = primary.get(path)
    # An export says when it was made.
    same = {name: value for name, value in here.headers.items() if name not in ("X-Request-ID", "RateLimit")}
    assert {name: there.headers.get(name) for name in same} == same
    assert {**_members(there.json), "exported_at": 0} == {**_members(here.json), "exported_at": 0}


def _members(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else {"": answer}


@pytest.mark.parametrize("path", READS)
def test_one_that_is_behind_is_passed_over(pair: Pair, carol: User, path: str) -> None:
    pair.pause()
    carol.create("three")
    assert READS[path](carol.get(path).json) == 3
    assert not pair.asked()
    assert pair.wire.queries, "it was asked how far it is"
    pair.resume()
    pair.catch_up()
    assert READS[path](carol.get(path).json) == 3
    assert pair.asked()


def test_others_changes_hold_nobody_up(pair: Pair, carol: User) -> None:
    """It is behind only for those who have changed something."""
    pair.pause()
    other = user_of(carol.client.application, "dave")
    other.create("new")
    assert carol.titles() == ["two", "one"]
    assert pair.asked()
    pair.wire.reset()
    assert other.titles() == ["new"]
    assert not pair.asked()


def test_a_user_with_nothing_is_the_primarys_to_answer(pair: Pair, carol: User) -> None:
    nobody = user_of(carol.client.application, "nobody")
    assert nobody.titles() == []
    assert pair.wire.queries == []


@pytest.mark.parametrize("command", [["renew"], ["forget", "--yes"]], ids=lambda command: command[0])
def test_a_life_that_is_over_is_not_read_there(pair: Pair, carol: User, command: list[str]) -> None:
    """Its changes count as many, or more; but it is another one."""
    app = carol.client.application
    pair.pause()
    before = carol.get("/api/tasks").headers["ETag"]
    invoke(app, *command, *([carol.id] if command[0] == "forget" else []))
    if command[0] == "forget":
        assert carol.titles() == []
        carol.create("second life")
    pair.wire.reset()
    assert carol.get("/api/tasks").headers["ETag"] != before
    assert not pair.asked()


def test_one_task_and_whose_it_is_are_asked_of_the_primary(pair: Pair, carol: User) -> None:
    """403 and 404 are as ever, though the replica knows nothing of the other's task."""
    pair.pause()
    other = user_of(carol.client.application, "dave")
    theirs = other.create("new")
    [task, _] = carol.get("/api/tasks").json
    pair.wire.reset()
    assert carol.get(f"/api/tasks/{task['id']}").json == task
    assert_problem(carol.get(f"/api/tasks/{theirs['id']}"), 403)
    assert_problem(carol.get(f"/api/tasks/{uuid4()}"), 404)
    assert_problem(carol.get("/api/tasks/changes?since=x"), 422)
    assert_problem(carol.get(f"/api/{other.id}/tasks"), 403)
    assert not pair.asked()


def test_nobody_misses_what_they_have_changed(pair: Pair) -> None:
    """Eight writers, each through a process of their own, read through another one while the replica stops and goes."""
    apps = [pair.app() for _ in range(2)]
    users = [user_of(apps[0], f"user{number}") for number in range(8)]
    for user in users:
        user.create("0")
    pair.catch_up()
    pair.wire.reset()
    wrong: list[Any] = []

    def work(user: User) -> None:
        reader = User(user.id, apps[1].test_client(), user.token)
        writer, count = again(user), 1
        for turn in range(20):
            id = writer.create(f"{turn}")["id"]
            count += 1
            if turn % 5 == 4:
                writer.delete(f"/api/tasks/{id}?permanent=true")
                count -= 1
            found = len(reader.titles()), reader.get("/api/tasks/stats").json["total"]
            if found != (count, count):
                wrong.append((user.id, turn, count, found))
            time.sleep(0.01)
            if len(reader.titles()) != count:
                wrong.append((user.id, turn, count))

    threads = [threading.Thread(target=work, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        pair.pause()
        time.sleep(0.1)
        pair.resume()
        time.sleep(0.1)
    assert wrong == []
    # Some it could answer, others not.
    asked_how_far = len([sql for sql in pair.wire.queries if "FROM owners" in sql and "FROM tasks" not in sql])
    assert 0 < len(pair.asked()) < asked_how_far


@pytest.mark.parametrize("fault", ["gone", "silent", "cut", "cancelled"])
def test_without_it_the_primary_serves(pair: Pair, carol: User, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """No request fails; and the replica is left alone until it may be well again."""
    if fault == "gone":
        app = create_app(replace(carol.client.application.extensions["settings"], read_url=_nowhere()))
        user = User(carol.id, app.test_client(), carol.token)
    else:
        user = carol
    if fault == "silent":
        monkeypatch.setattr("todo_service.db.session.Connection.answer_seconds", 0.3)
        pair.wire.hold_replies()
    elif fault == "cut":
        pair.wire.cut()
        pair.wire.rewrite = lambda sql: "SELECT pg_terminate_backend(pg_backend_pid())"
    elif fault == "cancelled":
        # As where the replica must give up a query for what the primary has removed.
        raised = "RAISE SQLSTATE '40001' USING MESSAGE = 'canceling statement due to conflict with recovery'"
        pair.wire.rewrite = lambda sql: f"DO $$ BEGIN {raised}; END $$" if "FROM tasks" in sql else sql
    monkeypatch.setattr(replicas, "PAUSE", 1)
    for path, number in READS.items():
        assert number(user.get(path).json) == 2
    asked = len(pair.wire.queries)
    assert asked <= 3
    assert number(user.get(path).json) == 2
    assert len(pair.wire.queries) == asked
    pair.wire.rewrite = None
    pair.wire.release()
    if fault != "gone":
        time.sleep(1.1)
        pair.wire.reset()
        assert len(user.titles()) == len(user.titles()) == 2
        assert len(pair.asked()) == 2


def test_a_full_machine_is_no_fault_of_the_replica(
    pair: Pair, carol: User, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("todo_service.api.transfer.IN_MEMORY", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nothing"))
    assert_problem(carol.get("/api/tasks/export"), 503, "unavailable")
    assert len([sql for sql in pair.wire.queries if "FROM owners" in sql]) == 1
    pair.wire.reset()
    assert len(carol.titles()) == 2
    assert pair.asked()


def _nowhere() -> str:
    return f"postgresql://nobody@127.0.0.1:{free_port()}/todo"


def test_changes_never_go_there(pair: Pair, carol: User) -> None:
    task = carol.create("three")
    path = f"/api/tasks/{task['id']}"
    assert carol.patch(path, json={"title": "3"}).status_code == 200
    assert carol.post("/api/tasks/import", json={"tasks": [{"title": "four"}]}).status_code == 200
    assert carol.delete(path).status_code == 200
    assert pair.wire.queries == []


def test_check_tells_how_far_it_is(pair: Pair, carol: User) -> None:
    line = "ok      replica: revision "
    assert any(said.startswith(line) for said in invoke(carol.client.application, "check").splitlines())
    settings = carol.client.application.extensions["settings"]
    for url, said in ((pair.primary.dsn, "follows no other database"), (_nowhere(), "cannot be reached")):
        done = create_app(replace(settings, read_url=url)).test_cli_runner().invoke(args=["check"])
        assert done.exit_code == 1
        [found] = [line for line in done.output.splitlines() if "replica: " in line]
        assert found.startswith("FAILED")
        assert said in found
        assert "DATABASE_READ_URL" in found

"""What the purge removes for good, and what it says of it: it counts over all users."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
from flask import Flask

from tests.api.test_sync import Client, changes, of_server
from tests.cli.test_cli import invoke
from tests.conftest import User, assert_problem, run_sql, settings_for, user_of
from tests.http.test_idempotency import age as age_answers
from tests.http.test_idempotency import keys_of, post
from tests.support.wire import Wire
from todo_service import cli, create_app
from todo_service.db.models import ANSWER_HOURS
from todo_service.tasks import retention


@pytest.fixture
def database_url(make_database: Callable[[], str]) -> str:
    """A database of the test's own: in another one there would be what other tests have left."""
    url = make_database()
    cli.upgrade(url)
    return url


@pytest.fixture
def app(database_url: str) -> Flask:
    return create_app(settings_for(database_url))


def age(url: str, user: User, table: str, column: str, days: int) -> None:
    sql = f"UPDATE {table} SET {column} = now() - interval '{days} days' WHERE user_id = %(user)s"
    run_sql(url, sql, {"user": user.id})


def test_purge_removes_old_trash_and_old_tombstones(app: Flask, alice: User, bob: User, database_url: str) -> None:
    ids = [alice.create(f"{n}")["id"] for n in range(3)]
    for id in ids[:2]:
        alice.delete(f"/api/tasks/{id}")
    kept = bob.create()
    bob.delete(f"/api/tasks/{kept['id']}")
    age(database_url, alice, "tasks", "deleted_at", retention.TRASH_DAYS + 1)
    run_sql(database_url, "UPDATE tasks SET deleted_at = NULL WHERE id = %(id)s", {"id": ids[2]})
    etag = alice.get("/api/tasks?deleted=true").headers["ETag"]
    assert invoke(app, "purge").startswith("2 tasks")
    assert alice.get("/api/tasks?deleted=true", headers={"If-None-Match": etag}).json == []
    assert alice.titles() == ["2"]
    assert bob.titles("?deleted=true") == ["Buy milk"]
    buried = run_sql(database_url, "SELECT id, version FROM tombstones WHERE user_id = %(user)s", {"user": alice.id})
    assert {id for id, _ in buried} == set(ids[:2])
    assert invoke(app, "purge").startswith("0 tasks removed for good, 0 tombstones")
    age(database_url, alice, "tombstones", "purged_at", retention.TOMBSTONE_DAYS + 1)
    assert "2 tombstones" in invoke(app, "purge")
    [(horizon,)] = run_sql(database_url, "SELECT horizon FROM owners WHERE user_id = %(user)s", {"user": alice.id})
    assert horizon == max(version for _, version in buried)


def test_purge_of_very_much_of_one_user_takes_several_steps(app: Flask, alice: User, database_url: str) -> None:
    """However much that is, no step runs into the deadline of a statement; nor if there was none of it before.

    Then PostgreSQL expects to find none, by its statistics, and is tempted to compare each of them with each.
    """
    alice.create("stays")
    count = retention.ROWS_A_STEP + 7
    fill = """
        INSERT INTO owners (user_id) SELECT n::text FROM generate_series(1, 300) AS n;
        INSERT INTO tasks (user_id, id, title, title_key, position, version)
        SELECT mod(n, 300)::text, gen_random_uuid(), 'x', 'x', n, 1 FROM generate_series(1, 6000) AS n;
        ANALYZE;
        INSERT INTO tasks (user_id, id, title, title_key, position, version, deleted_at)
        SELECT %(user)s, gen_random_uuid(), 'x', 'x', n, 1, '2000-01-01Z' FROM generate_series(1, %(count)s) AS n
    """
    run_sql(database_url, fill, {"user": alice.id, "count": count})
    with app.app_context(), cli.unscoped() as session:
        steps = retention._taken(session, retention.OWNERS_OF_TRASH, retention.PURGE_TRASH)
        assert next(steps) == retention.ROWS_A_STEP
        assert retention.purge(session).tasks == 7
    assert alice.titles() == ["stays"]
    assert alice.titles("?deleted=true") == []


def test_very_many_tombstones_go_in_steps(app: Flask, alice: User, database_url: str) -> None:
    """The oldest changes first, so that what is left can still be told to who has synced since those."""
    alice.create("stays")
    count = retention.ROWS_A_STEP + 7
    fill = """
        INSERT INTO tombstones (user_id, id, version, purged_at)
        SELECT %(user)s, gen_random_uuid(), n, '2000-01-01Z' FROM generate_series(1, %(count)s) AS n
    """
    run_sql(database_url, fill, {"user": alice.id, "count": count})
    left = "SELECT count(*), min(version), (SELECT horizon FROM owners WHERE user_id = %(user)s) FROM tombstones"
    with app.app_context(), cli.unscoped() as session:
        assert next(retention._taken(session, retention.OWNERS_OF_TOMBSTONES, retention.DROP_TOMBSTONES)) == count - 7
        assert run_sql(database_url, left, {"user": alice.id}) == [(7, count - 6, count - 7)]
        assert retention.purge(session).tombstones == 7
    assert run_sql(database_url, left, {"user": alice.id}) == [(0, None, count)]


def test_very_much_is_forgotten_in_steps(app: Flask, alice: User, bob: User, database_url: str) -> None:
    alice.create("one")
    bob.create("stays")
    count = retention.ROWS_A_STEP * 2 + 7
    fill = """
        INSERT INTO tasks (user_id, id, title, title_key, position, version)
        SELECT %(user)s, gen_random_uuid(), 'x', 'x', n, n FROM generate_series(1, %(count)s) AS n
    """
    run_sql(database_url, fill, {"user": alice.id, "count": count})
    # So much can't be removed by one statement.
    run_sql(database_url, refused_beyond(retention.ROWS_A_STEP))
    assert f"{count + 1} tasks" in invoke(app, "forget", alice.id, "--yes")
    assert alice.titles() == []
    assert bob.titles() == ["stays"]
    assert run_sql(database_url, "SELECT user_id FROM owners") == [(bob.id,)]


def refused_beyond(rows: int) -> str:
    """SQL that has PostgreSQL refuse to delete more tasks than that at once."""
    return f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT count(*) FROM gone) > {rows} THEN RAISE 'too many'; END IF;
            RETURN NULL;
        END $$;
        CREATE TRIGGER refuse AFTER DELETE ON tasks REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION refuse()
    """


def test_what_comes_while_a_user_is_forgotten_goes_too(app: Flask, alice: User, wire: Wire, database_url: str) -> None:
    """Else there would be a task whose owner is gone."""
    alice.create("one")
    slow = create_app(settings_for(wire.dsn()))
    made: list[str] = []

    def late(sql: str) -> str:
        if "DELETE FROM tombstones" in sql and not made:
            made.append(alice.create("two")["id"])
        return sql

    wire.rewrite = late
    assert "2 tasks" in invoke(slow, "forget", alice.id, "--yes")
    assert made
    assert alice.titles() == []
    assert alice.get(f"/api/tasks/{made[0]}").status_code == 404
    assert run_sql(database_url, "SELECT count(*) FROM tasks") == [(0,)]
    assert alice.create("new")["version"] == 1


def test_purge_twice_at_once_removes_each_task_once(app: Flask, database_url: str) -> None:
    users = [user_of(app, "carol") for _ in range(20)]
    for user in users:
        user.delete(f"/api/tasks/{user.create()['id']}")
        user.create("stays")
        sql = (
            "UPDATE tasks SET deleted_at = now() - interval '99 days' WHERE user_id = %(u)s AND deleted_at IS NOT NULL"
        )
        run_sql(database_url, sql, {"u": user.id})
    removed: list[int] = []

    def purge() -> None:
        with app.app_context(), cli.unscoped() as session:
            removed.append(retention.purge(session)[0])

    threads = [threading.Thread(target=purge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(removed) == 20
    assert [user.titles() for user in users] == [["stays"]] * 20
    assert [user.titles("?deleted=true") for user in users] == [[]] * 20


def test_purge_comes_back_to_users_who_were_busy(
    app: Flask, alice: User, bob: User, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the same run, if that doesn't take too long; what it had to leave, it says."""
    for user in (alice, bob):
        user.delete(f"/api/tasks/{user.create()['id']}")
        user.delete(f"/api/tasks/{user.create()['id']}?permanent=true")
        age(database_url, user, "tasks", "deleted_at", retention.TRASH_DAYS + 1)
        age(database_url, user, "tombstones", "purged_at", retention.TOMBSTONE_DAYS + 1)
    with psycopg2.connect(database_url) as other, other.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", (alice.id,))
        monkeypatch.setattr(retention, "PATIENCE", 0.3)
        said = invoke(app, "purge")
        assert said.startswith("1 tasks removed for good, 1 tombstones dropped")
        assert "left for the next run, as their users were busy: 1 tasks, 1 tombstones, 0 Idempotency-Keys" in said
        assert bob.titles("?deleted=true") == []
        monkeypatch.undo()
        purging = pool.submit(invoke, app, "purge")
        time.sleep(0.5)
        assert not purging.done()
        other.rollback()
        said = purging.result(timeout=10)
    other.close()
    assert said == "1 tasks removed for good, 1 tombstones dropped, 0 Idempotency-Keys forgotten\n"
    assert alice.titles("?deleted=true") == []


def test_purge_removes_forgotten_keys(app: Flask, alice: User, bob: User, database_url: str) -> None:
    invoke(app, "purge")
    count = 2 * retention.ANSWERS_A_STEP + 7
    fill = """
        INSERT INTO answers (user_id, key, fingerprint, status, headers, body)
        SELECT %(user)s, n::text, '', 201, '{}', '' FROM generate_series(1, %(count)s) AS n
    """
    run_sql(database_url, fill, {"user": alice.id, "count": count})
    age_answers(database_url, alice, ANSWER_HOURS + 0.1)
    apart = "UPDATE answers SET created_at = created_at - key::int * interval '1 ms' WHERE user_id = %(user)s"
    run_sql(database_url, apart, {"user": alice.id})
    post(alice, key="fresh")
    post(bob, key="old")
    post(bob, key="fresh")
    sql = "UPDATE answers SET created_at = now() - interval '25 hours' WHERE user_id = %(user)s AND key = 'old'"
    run_sql(database_url, sql, {"user": bob.id})
    with Wire(database_url) as wire:
        assert f"{count + 1} Idempotency-Keys forgotten" in invoke(create_app(settings_for(wire.dsn())), "purge")
        # In steps of their own, so that none takes long.
        assert len([sql for sql in wire.queries if "DELETE FROM answers" in sql]) == 3
    assert keys_of(database_url, alice) == keys_of(database_url, bob) == {"fresh"}
    assert "0 Idempotency-Keys forgotten" in invoke(app, "purge")
    age_answers(database_url, alice, ANSWER_HOURS + 0.1)
    assert "1 Idempotency-Keys forgotten" in invoke(app, "purge")


def test_a_token_older_than_the_tombstones_is_gone(app: Flask, alice: User, database_url: str) -> None:
    kept, gone, later = (alice.create(name)["id"] for name in ("kept", "gone", "later"))
    old, begun = Client(alice), Client(alice)
    old.sync()
    begun.pull(limit=1)
    alice.delete(f"/api/tasks/{gone}?permanent=true")
    new = Client(alice)
    new.sync()
    age(database_url, alice, "tombstones", "purged_at", retention.TOMBSTONE_DAYS + 1)
    assert invoke(app, "purge").startswith("0 tasks removed for good, 1 tombstones")
    alice.delete(f"/api/tasks/{later}")
    for client in (old, begun):
        response = alice.get(f"/api/tasks/changes?since={client.next}")
        assert "without `since`" in assert_problem(response, 410, "gone")["detail"]
    for client in (new, Client(alice)):
        client.sync()
        assert client.tasks == of_server(alice)
        assert set(client.tasks) == {kept, later}


def test_what_the_purge_removes_from_the_trash_is_told(app: Flask, alice: User, database_url: str) -> None:
    alice.create("kept")
    ids = {alice.create(f"{n}")["id"] for n in range(3)}
    for id in ids:
        alice.delete(f"/api/tasks/{id}")
    client = Client(alice)
    client.sync()
    age(database_url, alice, "tasks", "deleted_at", retention.TRASH_DAYS + 1)
    run_sql(
        database_url, "UPDATE tasks SET deleted_at = NULL WHERE user_id = %(u)s AND title = 'kept'", {"u": alice.id}
    )
    invoke(app, "purge")
    assert {change["id"] for change in changes(client.sync(limit=2)) if change["purged"]} == ids
    assert client.tasks == of_server(alice)
    assert len(client.tasks) == 1

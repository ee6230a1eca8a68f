"""A POST that is repeated with its Idempotency-Key is done once, whatever goes wrong in between."""

import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

import psycopg2
import pytest
from flask import Flask

from tests.cli.test_cli import invoke
from tests.conftest import SECRET, User, again, assert_problem, await_locks, revision, run_sql, settings_for, user_of
from tests.http.test_conditions import at_once
from tests.support.live import Service
from tests.support.wire import Wire
from todo_service import create_app
from todo_service.db import session
from todo_service.db.models import ANSWER_HOURS

REPLAYED = "Idempotency-Replayed"
KEPT = ("Content-Type", "Content-Length", "ETag", "Location", "Cache-Control")


def post(user: User, body: Any = None, key: str | None = "key-1", path: str = "/api/tasks", **headers: str) -> Any:
    headers |= {} if key is None else {"Idempotency-Key": key}
    return user.post(path, json=body if body is not None else {"title": "Buy milk"}, headers=headers)


BATCH = {"operations": [{"op": "create", "task": {"title": "Buy milk"}}, {"op": "create", "task": {"title": "Rest"}}]}
# Requests that make a task or two, or bring one back: name -> path and body. {id} is one in the trash.
REQUESTS: dict[str, tuple[str, Any]] = {
    "create": ("/api/tasks", {"title": "Buy milk"}),
    "batch": ("/api/tasks/batch", BATCH),
    "restore": ("/api/tasks/{id}/restore", {}),
}


def prepared(user: User, name: str) -> tuple[str, Any]:
    """The path and body of a request, and what it needs."""
    path, body = REQUESTS[name]
    if "{id}" in path:
        path = path.replace("{id}", user.create("Buy milk")["id"])
        user.delete(path.removesuffix("/restore"))
    return path, body


@pytest.mark.parametrize("name", REQUESTS)
def test_the_first_answer_comes_again(alice: User, name: str) -> None:
    path, body = prepared(alice, name)
    first = post(alice, body, path=path)
    assert first.status_code == (201 if name == "create" else 200)
    assert REPLAYED not in first.headers
    alice.create("in between")
    if name == "restore":
        alice.delete(path.removesuffix("/restore"))
    before = alice.get("/api/tasks")
    for _ in range(2):
        second = post(alice, body, path=path)
        assert second.headers[REPLAYED] == "true"
        assert (second.status_code, second.data) == (first.status_code, first.data)
        assert {n: second.headers.get(n) for n in KEPT} == {n: first.headers.get(n) for n in KEPT}
    after = alice.get("/api/tasks")
    assert (after.json, after.headers["ETag"]) == (before.json, before.headers["ETag"])


@pytest.mark.parametrize("name", REQUESTS)
def test_both_families_mean_the_same_request(alice: User, name: str) -> None:
    path, body = prepared(alice, name)
    first = post(alice, body, path=path)
    for other in (
        f"{path}/",
        path.replace("/api/", f"/api/{alice.id}/"),
        path.replace("/api/", f"/api/{alice.id}/") + "/",
    ):
        second = post(alice, body, path=other)
        assert (second.status_code, second.data) == (first.status_code, first.data)
        assert second.headers[REPLAYED] == "true"


def test_without_a_key_it_is_done_each_time(alice: User) -> None:
    for _ in range(2):
        assert REPLAYED not in post(alice, key=None).headers
    assert len(alice.titles()) == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/tasks", {"title": "Buy oat milk"}),
        ("/api/tasks", {"title": "Buy milk", "completed": False}),
        ("/api/tasks", {}),
        ("/api/tasks?x=1", {"title": "Buy milk"}),
        ("/api/tasks/batch", BATCH),
        ("/api/tasks/0197c9a4-6d2f-7c3e-9b41-404404404404/restore", {"title": "Buy milk"}),
    ],
)
def test_another_request_needs_another_key(alice: User, path: str, body: Any) -> None:
    post(alice)
    problem = assert_problem(post(alice, body, path=path), 422, "invalid")
    assert problem["errors"][0]["field"] == "Idempotency-Key"
    assert alice.titles() == ["Buy milk"]
    assert post(alice).headers[REPLAYED] == "true"


def test_keys_are_a_users_own(alice: User, bob: User) -> None:
    post(alice)
    response = post(bob, {"title": "Bob's"})
    assert (response.status_code, REPLAYED in response.headers) == (201, False)
    assert bob.titles() == ["Bob's"]
    assert alice.titles() == ["Buy milk"]


@pytest.mark.parametrize(
    "key", ["x", "x" * 255, 'a key, with: "punctuation" ~', "0197c9a4-6d2f-7c3e-9b41-404404404404"]
)
def test_good_key(alice: User, key: str) -> None:
    assert post(alice, key=key).status_code == 201
    assert post(alice, key=key).headers[REPLAYED] == "true"
    assert REPLAYED not in post(alice, key=key.swapcase() if key.swapcase() != key else "other").headers


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9", "a\tb", "\x7f", "x" * 5000])
def test_bad_key_is_refused_by_name(alice: User, key: str) -> None:
    for path, body in (("/api/tasks", None), ("/api/tasks/batch", BATCH)):
        problem = assert_problem(post(alice, body, key, path), 422, "invalid")
        assert problem["errors"][0]["field"] == "Idempotency-Key"
    assert alice.titles() == []


def test_an_error_is_not_kept(alice: User, bob: User) -> None:
    """Nothing was changed, so the same key may be used to get it right."""
    task = bob.create()
    absent = {"operations": [{"op": "create", "task": {"title": "x"}}, {"op": "complete", "id": task["id"]}]}
    for path, body, status in (
        ("/api/tasks", {}, 422),
        ("/api/tasks", {"title": "x", "recurrence": "daily"}, 422),
        ("/api/tasks/batch", absent, 403),
        (f"/api/tasks/{task['id']}/restore", {}, 403),
        ("/api/tasks/x/restore", {}, 404),
    ):
        for _ in range(2):
            response = post(alice, body, path=path)
            assert_problem(response, status)
            assert REPLAYED not in response.headers
    assert alice.titles() == []
    assert post(alice).status_code == 201
    assert bob.get("/api/tasks").json == [task]


def test_while_the_first_is_running(alice: User, database_url: str) -> None:
    alice.create("first")
    holder = psycopg2.connect(database_url)
    with holder.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", (alice.id,))
        first = pool.submit(post, again(alice))
        await_locks(database_url)
        problem = assert_problem(post(alice), 409, "conflict")
        assert "still running" in problem["detail"]
        holder.rollback()
        assert post(alice, {"title": "other"}, key="key-2").status_code == 201
        assert first.result().status_code == 201
    holder.close()
    assert post(alice).data == first.result().data
    assert sorted(alice.titles()) == ["Buy milk", "first", "other"]


@pytest.mark.parametrize("name", REQUESTS)
def test_twenty_at_once_are_done_once(alice: User, name: str) -> None:
    path, body = prepared(alice, name)
    before = revision(alice.get("/api/tasks"))
    answers: list[Any] = []
    at_once(20, lambda _: answers.append(post(again(alice), body, path=path)))
    done = [answer for answer in answers if answer.status_code in (200, 201)]
    assert {answer.status_code for answer in answers} <= {done[0].status_code, 409}
    assert Counter(REPLAYED in answer.headers for answer in done)[False] == 1
    assert len({answer.data for answer in done}) == 1
    assert len(alice.titles()) == (2 if name == "batch" else 1)
    assert revision(alice.get("/api/tasks")) == before + len(alice.titles())


def test_from_two_processes_it_is_done_once(alice: User, database_url: str) -> None:
    def send(url: str, key: str) -> tuple[int, str, bool, bytes]:
        headers = {"Authorization": f"Bearer {alice.token}", "Idempotency-Key": key, "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/api/tasks", b'{"title": "Buy milk"}', headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers["Location"], REPLAYED in answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "", False, b""

    many = "100000/minute"
    with (
        Service(database_url, SECRET, RATELIMIT_DEFAULT=many, WEB_CONCURRENCY="1", WEB_THREADS="8") as first,
        Service(database_url, SECRET, RATELIMIT_DEFAULT=many, WEB_CONCURRENCY="1", WEB_THREADS="8") as second,
        ThreadPoolExecutor(20) as pool,
    ):
        for turn in range(5):
            answers = list(pool.map(send, [first.url, second.url] * 10, [f"key-{turn}"] * 20))
            done = [answer for answer in answers if answer[0] == 201]
            # With ten at once in a process, some are told to come back.
            assert {status for status, *_ in answers} <= {201, 409, 429}
            assert [replayed for _, _, replayed, _ in done].count(False) == 1
            assert len({(place, body) for _, place, _, body in done}) == 1
            for url in (first.url, second.url):
                assert send(url, f"key-{turn}") == (201, done[0][1], True, done[0][3])
            assert len(alice.titles()) == turn + 1


# At the very moment of the commit the connection is lost: before PostgreSQL has heard of it, or after.
KILL = "SET LOCAL ROLE NONE; SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize(("instead", "done"), [(KILL, False), (f"COMMIT; {KILL}", True)])
def test_a_connection_lost_at_the_commit(database_url: str, name: str, instead: str, done: bool) -> None:
    """Both are kept, change and key, or neither; and the retry ends with the change made once."""
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        path, body = prepared(user, name)
        wire.rewrite = lambda sql: instead if sql == "COMMIT" else sql
        response = post(user, body, path=path)
        assert_problem(response, 503, "unavailable")
        assert response.headers["Retry-After"]
        wire.rewrite = None
        count = len(BATCH["operations"]) if name == "batch" else 1
        assert len(user.titles()) == (count if done else 0)
        keys = "SELECT count(*) FROM answers WHERE user_id = %(user)s"
        assert run_sql(database_url, keys, {"user": user.id}) == [(int(done),)]
        retried = post(user, body, path=path)
        assert retried.status_code == (201 if name == "create" else 200)
        assert (REPLAYED in retried.headers) is done
        assert len(user.titles()) == count
        assert post(user, body, path=path).data == retried.data


class Slow(BytesIO):
    """A file that takes its time, whether to arrive or to be read."""

    def readinto(self, buffer: Any, /) -> int:
        if self.tell() == 0:
            time.sleep(3)
        return super().readinto(buffer)


def test_a_file_may_take_long_to_read(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than a transaction may otherwise wait for its next message."""
    monkeypatch.setattr(session, "KEEP", "SET LOCAL idle_in_transaction_session_timeout = 2000; ")
    headers = {"Content-Type": "text/csv", "Idempotency-Key": "key-1"}
    file = b"title\nBuy milk\n"
    slow: dict[str, Any] = {"input_stream": Slow(file), "content_length": len(file)}
    response = alice.post("/api/tasks/import", headers=headers, **slow)
    assert response.status_code == 200, response.text
    assert alice.titles() == ["Buy milk"]


def test_an_answer_that_cannot_be_kept_undoes_the_change(database_url: str) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        wire.rewrite = lambda sql: KILL if "INSERT INTO answers" in sql else sql
        assert_problem(post(user), 503)
        assert_problem(post(user, BATCH, path="/api/tasks/batch"), 503)
        wire.rewrite = None
        assert user.titles() == []
        assert post(user).status_code == 201


def age(url: str, user: User, hours: float) -> None:
    sql = "UPDATE answers SET created_at = now() - %(hours)s * interval '1 hour' WHERE user_id = %(user)s"
    run_sql(url, sql, {"user": user.id, "hours": hours})


def test_a_key_is_forgotten_after_a_day(alice: User, database_url: str) -> None:
    post(alice)
    age(database_url, alice, ANSWER_HOURS - 0.1)
    assert post(alice).headers[REPLAYED] == "true"
    age(database_url, alice, ANSWER_HOURS + 0.1)
    other = post(alice, {"title": "Another"})
    assert (other.status_code, REPLAYED in other.headers) == (201, False)
    # And counts from then on for another day.
    assert post(alice, {"title": "Another"}).headers[REPLAYED] == "true"
    assert_problem(post(alice), 422)
    assert alice.titles() == ["Another", "Buy milk"]


def keys_of(url: str, user: User) -> set[str]:
    return {key for (key,) in run_sql(url, "SELECT key FROM answers WHERE user_id = %(user)s", {"user": user.id})}


def test_forget_takes_a_users_keys_along(app: Flask, alice: User, bob: User, database_url: str) -> None:
    for user in (alice, bob):
        post(user)
    invoke(app, "forget", "--yes", alice.id)
    assert keys_of(database_url, alice) == set()
    assert keys_of(database_url, bob) == {"key-1"}
    assert post(alice).status_code == 201

"""If-Match and If-None-Match (RFC 9110, section 13.1), also when many try at once, and whose tags they take."""

import http.client
import json
import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing

import psycopg2
import pytest
from flask import Flask

from tests.cli.test_cli import invoke
from tests.conftest import SECRET, User, again, assert_problem, assert_tagged, await_locks, revision, run_sql
from tests.support.live import Service
from todo_service.tasks import renewal


def test_read_is_revalidated(alice: User) -> None:
    task = alice.create()
    path = f"/api/tasks/{task['id']}"
    first = alice.get(path)
    assert_tagged(first)
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    again = alice.get(path, headers={"If-None-Match": etag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", etag)
    alice.patch(path, json={"title": "x"})
    assert alice.get(path, headers={"If-None-Match": etag}).status_code == 200


CHANGES = [("PUT", ""), ("PATCH", ""), ("PATCH", "/complete"), ("DELETE", ""), ("DELETE", "?permanent=true")]


@pytest.mark.parametrize(("method", "suffix"), CHANGES)
@pytest.mark.parametrize(
    ("tag", "holds"),
    [
        ('"{version}"', True),
        ('"999", "{version}"', True),
        ("*", True),
        ('"999"', False),
        ('W/"{version}"', False),
        ('"x"', False),
        ('"0{version}x"', False),
        ('"99999999999999999999999"', False),
    ],
)
def test_change_of_a_version(alice: User, method: str, suffix: str, tag: str, holds: bool) -> None:
    task = alice.create()
    path = f"/api/tasks/{task['id']}"
    headers = {"If-Match": tag.format(version=task["version"])}
    response = alice.request(method, path + suffix, json={"title": "changed", "completed": True}, headers=headers)
    if holds:
        assert response.status_code == 200
    else:
        assert '"1"' in assert_problem(response, 412, "precondition-failed")["detail"]
        assert alice.get("/api/tasks").json == [task]
        assert revision(alice.get("/api/tasks")) == 1


def test_change_that_changes_nothing_still_minds_the_condition(alice: User) -> None:
    path = f"/api/tasks/{alice.create(completed=True)['id']}"
    stale = {"If-Match": '"7"'}
    assert_problem(alice.patch(path, json={}, headers=stale), 412)
    assert_problem(alice.patch(f"{path}/complete", json={"completed": True}, headers=stale), 412)
    assert_problem(alice.post(f"{path}/restore", headers=stale), 412)


def test_restore_of_a_version(alice: User) -> None:
    path = f"/api/tasks/{alice.create()['id']}"
    version = alice.delete(path).json["version"]
    assert_problem(alice.post(f"{path}/restore", headers={"If-Match": '"1"'}), 412)
    assert alice.post(f"{path}/restore", headers={"If-Match": f'"{version}"'}).status_code == 200


def test_many_to_the_trash_from_a_list_that_is_still_right(alice: User) -> None:
    alice.create()
    stale = alice.get("/api/tasks").headers["ETag"]
    alice.delete("/api/tasks?status=all")
    alice.create()
    problem = assert_problem(alice.delete("/api/tasks?status=all", headers={"If-Match": stale}), 412)
    assert alice.get("/api/tasks").headers["ETag"] in problem["detail"]
    assert len(alice.titles()) == 1
    etag = alice.get("/api/tasks").headers["ETag"]
    assert alice.delete("/api/tasks?status=completed", headers={"If-Match": etag}).json == {"deleted": 0}
    assert alice.delete("/api/tasks?status=all", headers={"If-Match": etag}).json == {"deleted": 1}
    assert_problem(alice.delete("/api/tasks?status=all", headers={"If-Match": etag}), 412)


def test_many_to_the_trash_of_who_has_nothing(alice: User) -> None:
    answer = alice.delete("/api/tasks?status=all", headers={"If-Match": '"1-0123456789ab"'})
    problem = assert_problem(answer, 412, "precondition-failed")
    assert problem["detail"] == "The list has changed. Read it again, then retry."


@pytest.mark.parametrize("status", ["all", "completed"])
def test_many_to_the_trash_while_the_list_changes(alice: User, database_url: str, status: str) -> None:
    """The condition counts when the change is made, not when the request arrives (RFC 9110, section 13.2.1)."""
    alice.create(completed=True)
    before = alice.get("/api/tasks")
    holder = psycopg2.connect(database_url)
    with holder.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        cursor.execute("UPDATE owners SET revision = revision + 1 WHERE user_id = %s", (alice.id,))
        headers = {"If-Match": before.headers["ETag"]}
        sweep = pool.submit(again(alice).delete, f"/api/tasks?status={status}", headers=headers)
        await_locks(database_url)
        holder.commit()
        assert '"2-' in assert_problem(sweep.result(), 412, "precondition-failed")["detail"]
    holder.close()
    assert alice.get("/api/tasks").json == before.json


def test_condition_on_what_is_not_there(alice: User, bob: User) -> None:
    task = alice.create()
    anything = {"If-Match": "*"}
    assert_problem(bob.patch(f"/api/tasks/{task['id']}", json={"title": "x"}, headers=anything), 403)
    alice.delete(f"/api/tasks/{task['id']}")
    assert_problem(alice.patch(f"/api/tasks/{task['id']}", json={"title": "x"}, headers=anything), 404)


def at_once(count: int, work: object) -> None:
    """Call `work` with 0…count-1 in threads that start together."""
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        work(number)  # type: ignore[operator]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_twenty_changes_of_one_version_one_wins(alice: User) -> None:
    task = alice.create()
    statuses: Counter[int] = Counter()

    def change(number: int) -> None:
        user = again(alice)
        response = user.patch(f"/api/tasks/{task['id']}", json={"title": f"{number}"}, headers={"If-Match": '"1"'})
        statuses[response.status_code] += 1

    at_once(20, change)
    assert statuses == {200: 1, 412: 19}
    assert alice.get(f"/api/tasks/{task['id']}").json["version"] == 2


def test_every_toggle_counts(alice: User, database_url: str) -> None:
    """900 toggles of one task, through three services with three connections each: 900 versions."""
    path = f"/api/tasks/{alice.create()['id']}"
    versions: list[int] = []

    def toggle(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for _ in range(100):
            connection.request("PATCH", f"{path}/complete", headers={"Authorization": f"Bearer {alice.token}"})
            response = connection.getresponse()
            task = json.load(response)
            assert response.status == 200, task
            # Every other version is that of a task which is open.
            assert task["completed"] is (task["version"] % 2 == 0)
            versions.append(task["version"])
        connection.close()

    def start() -> Service:
        return Service(database_url, SECRET, WEB_CONCURRENCY="1", RATELIMIT_DEFAULT="100000/minute")

    with ExitStack() as stack, ThreadPoolExecutor(9) as pool:
        services = [stack.enter_context(start()) for _ in range(3)]
        for done in [pool.submit(toggle, service.port) for service in services * 3]:
            done.result(timeout=60)
    assert sorted(versions) == list(range(2, 902))
    assert alice.get(path).json["version"] == 901
    assert alice.get(path).json["completed"] is False


@pytest.mark.parametrize("suffix", ["", "?permanent=true"])
def test_a_change_does_not_bring_back_what_is_being_deleted(alice: User, suffix: str) -> None:
    for _ in range(10):
        path = f"/api/tasks/{alice.create()['id']}"
        statuses: list[int] = []

        def race(number: int, path: str = path, statuses: list[int] = statuses) -> None:
            user = again(alice)
            if number:
                statuses.append(user.patch(path, json={"title": "x"}).status_code)
            else:
                statuses.append(user.delete(f"{path}{suffix}").status_code)

        at_once(4, race)
        assert set(statuses) <= {200, 404}
        assert statuses.count(200) >= 1
        assert_problem(alice.get(path), 404)
    assert alice.titles() == []
    assert len(alice.titles("?deleted=true")) == (0 if suffix else 10)


@pytest.mark.parametrize("tag", ['""', 'W/""', '"a", ""', ',""', '"*"', '"1"', "17", '"-"', '"1-"', '"\xe9"'])
def test_tags_that_are_nobodys(alice: User, tag: str) -> None:
    """Tags are opaque, and an empty one is a tag (RFC 9110, section 8.8.3)."""
    alice.create("first")
    path = f"/api/tasks/{alice.create()['id']}"
    for address in ("/api/tasks", path):
        assert alice.get(address, headers={"If-None-Match": tag}).status_code == 200
    assert_problem(alice.patch(path, json={"title": "x"}, headers={"If-Match": tag}), 412, "precondition-failed")
    assert_problem(alice.delete("/api/tasks?status=all", headers={"If-Match": tag}), 412, "precondition-failed")
    assert alice.titles() == ["Buy milk", "first"]


@pytest.mark.parametrize("tags", ['"9", {}', '{}, "x"', 'W/"", W/{}', '"999999-0", "2", "", {}', "*"])
def test_any_of_the_tags_matches(alice: User, tags: str) -> None:
    task = alice.create()
    for address in ("/api/tasks", f"/api/tasks/{task['id']}"):
        etag = alice.get(address).headers["ETag"]
        for method in ("GET", "HEAD"):
            answer = alice.request(method, address, headers={"If-None-Match": tags.format(etag)})
            assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", etag)


def test_tags_are_a_users_own(alice: User, bob: User) -> None:
    """Also where two hold the same task, in the same version, after as many changes: out of the same file."""
    id = str(uuid.uuid4())
    for user in (alice, bob):
        assert user.post("/api/tasks/import", json=[{"id": id, "title": user.id}]).json["created"] == 1
    for address in ("/api/tasks", f"/api/tasks/{id}"):
        tags = [user.get(address).headers["ETag"] for user in (alice, bob)]
        assert tags[0] != tags[1]
        for known in (tags[0], f"W/{tags[0]}", f'"1", {tags[0]}'):
            assert bob.get(address, headers={"If-None-Match": known}).status_code == 200
            assert alice.get(address, headers={"If-None-Match": known}).status_code == 304
        # What one has read doesn't allow to change what another has.
        for change in (bob.patch, bob.delete, bob.put):
            assert change(f"/api/tasks/{id}", json={"title": "x"}, headers={"If-Match": tags[0]}).status_code == 412
        assert bob.delete("/api/tasks?status=all", headers={"If-Match": tags[0]}).status_code == 412
    assert bob.titles() == [bob.id]


ONE = [
    ("PATCH", "", {"title": "x"}, False),
    ("PATCH", "", {}, False),
    ("PUT", "", {"title": "x", "completed": True}, False),
    ("PATCH", "/complete", {"completed": True}, False),
    ("PATCH", "/complete", {"completed": True}, True),
    ("PATCH", "/complete", {"completed": False}, False),
    ("POST", "/restore", {}, False),
    ("DELETE", "", None, False),
    ("DELETE", "?permanent=true", None, False),
]


@pytest.mark.parametrize(("method", "suffix", "body", "repeats"), ONE)
def test_a_whole_tag_is_a_condition_on_one_task(
    alice: User, method: str, suffix: str, body: dict[str, object] | None, repeats: bool
) -> None:
    """Whether one statement makes the change, or a plan, or there is nothing to change; and the answer has the next."""
    more = {"due_date": "2026-01-01", "recurrence": "daily"} if repeats else {}
    path = f"/api/tasks/{alice.create(**more)['id']}"
    tag = alice.get(path).headers["ETag"]
    elsewhere = tag[:-2] + ("0" if tag[-2] != "0" else "1") + '"'
    assert_problem(alice.request(method, path + suffix, json=body, headers={"If-Match": elsewhere}), 412)
    answer = alice.request(method, path + suffix, json=body, headers={"If-Match": f'"x", {tag}'})
    assert answer.status_code == 200
    assert_tagged(answer)
    assert answer.headers["ETag"].partition("-")[2] == tag.partition("-")[2]


def test_the_whole_list_wants_its_whole_tag(alice: User) -> None:
    alice.create()
    assert_problem(alice.delete("/api/tasks?status=all", headers={"If-Match": '"1"'}), 412)
    etag = alice.get("/api/tasks").headers["ETag"]
    assert alice.delete("/api/tasks?status=all", headers={"If-Match": etag}).json == {"deleted": 1}


def lives(url: str, owner: str) -> list[tuple[str]]:
    return run_sql(url, "SELECT nonce FROM owners WHERE user_id = %(owner)s", {"owner": owner})


@pytest.mark.parametrize("command", ["forget", "renew"])
def test_tags_of_another_life(app: Flask, alice: User, database_url: str, command: str) -> None:
    """After the same changes there are the same numbers again, but not the same tags."""
    title, id = "first life", str(uuid.uuid4())

    def live() -> list[str]:
        if not alice.titles():
            assert alice.post("/api/tasks/import", json=[{"id": id, "title": title}]).status_code == 200
        return [alice.get(address).headers["ETag"] for address in ("/api/tasks", f"/api/tasks/{id}")]

    before, nonce = live(), lives(database_url, alice.id)
    title = "second life"
    invoke(app, *([command, "--yes", alice.id] if command == "forget" else [command]))
    for tag, other, address in zip(before, live(), ("/api/tasks", f"/api/tasks/{id}"), strict=True):
        assert tag != other
        assert tag.partition("-")[0] == other.partition("-")[0]
        assert alice.get(address, headers={"If-None-Match": tag}).status_code == 200
        assert_problem(alice.patch(f"/api/tasks/{id}", json={"title": "x"}, headers={"If-Match": tag}), 412)
    assert nonce != lives(database_url, alice.id)


def test_renew_takes_several_steps(app: Flask, alice: User, bob: User, database_url: str) -> None:
    """However many users there are, no step runs into the deadline of a statement."""
    for user in (alice, bob):
        user.create()
    made = "INSERT INTO owners (user_id) SELECT %(u)s || n FROM generate_series(1, %(count)s) AS n"
    run_sql(database_url, made, {"u": f"{alice.id}-", "count": renewal.OWNERS_A_STEP})
    every = "SELECT user_id, nonce FROM owners"
    before = dict(run_sql(database_url, every))
    assert invoke(app, "renew").startswith(f"{len(before)} users")
    after = dict(run_sql(database_url, every))
    assert all(after[user] != nonce for user, nonce in before.items())
    assert len(set(after.values())) == len(after)


@pytest.mark.parametrize("change", ["update", "trash", "delete", "complete", "sweep", "restore"])
def test_a_change_that_fails_while_it_waits_counts_for_nothing(alice: User, database_url: str, change: str) -> None:
    """It found something to do when it came, and nothing any more when it was its turn: no ETag may differ."""
    task = alice.create()
    path = f"/api/tasks/{task['id']}"
    if change == "restore":
        alice.delete(path)
    etag = alice.get("/api/tasks").headers["ETag"]
    changes = {
        "update": lambda user: user.patch(path, json={"title": "x"}, headers={"If-Match": '"1"'}),
        "trash": lambda user: user.delete(path),
        "delete": lambda user: user.delete(f"{path}?permanent=true", headers={"If-Match": '"1"'}),
        "complete": lambda user: user.patch(f"{path}/complete", json={"completed": True}, headers={"If-Match": '"1"'}),
        "sweep": lambda user: user.delete("/api/tasks?status=all"),
        "restore": lambda user: user.post(f"{path}/restore", headers={"If-Match": '"2"'}),
    }
    other = "UPDATE tasks SET deleted_at = CASE WHEN deleted_at IS NULL THEN now() END, version = 9 WHERE id = %s"
    with closing(psycopg2.connect(database_url)) as holder, holder.cursor() as cursor, ThreadPoolExecutor(1) as pool:
        # Whatever else of the user's is changed, without a number of its own, so that any other one would be seen.
        cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", (alice.id,))
        cursor.execute(other, (task["id"],))
        waiting = pool.submit(changes[change], again(alice))
        await_locks(database_url)
        holder.commit()
        answer = waiting.result()
    if change == "sweep":
        assert answer.json == {"deleted": 0}
    else:
        assert_problem(answer, 404 if change == "trash" else 412)
    assert alice.get("/api/tasks").headers["ETag"] == etag

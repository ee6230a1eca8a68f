"""If-Match and If-None-Match on one task (RFC 9110, section 13.1), also when many try at once."""

import http.client
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg2
import pytest

from tests.conftest import SECRET, User, again, assert_problem, await_lock
from tests.live import Service


def test_read_is_revalidated(alice: User) -> None:
    task = alice.create()
    path, etag = f"/api/tasks/{task['id']}", f'"{task["version"]}"'
    first = alice.get(path)
    assert first.headers["ETag"] == etag
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
        assert alice.get("/api/tasks").headers["ETag"] == '"1"'


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
    stale = alice.get("/api/tasks").headers["ETag"]
    alice.create()
    problem = assert_problem(alice.delete("/api/tasks?status=all", headers={"If-Match": stale}), 412)
    assert '"1"' in problem["detail"]
    assert len(alice.titles()) == 1
    etag = alice.get("/api/tasks").headers["ETag"]
    assert alice.delete("/api/tasks?status=completed", headers={"If-Match": etag}).json == {"deleted": 0}
    assert alice.delete("/api/tasks?status=all", headers={"If-Match": etag}).json == {"deleted": 1}
    assert_problem(alice.delete("/api/tasks?status=all", headers={"If-Match": etag}), 412)


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
        await_lock(database_url, alice.id)
        holder.commit()
        assert '"2"' in assert_problem(sweep.result(), 412, "precondition-failed")["detail"]
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

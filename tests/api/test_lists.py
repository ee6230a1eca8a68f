"""The list: filter, order, pages."""

import base64
import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from tests.conftest import User, again, assert_problem
from todo_service.config import ROOT
from todo_service.tasks.listing import SORTS


def pages(user: User, path: str) -> list[list[dict[str, Any]]]:
    """The list at `path`, followed along its Link headers."""
    found = []
    next_path: str | None = path
    while next_path:
        response = user.get(next_path)
        assert response.status_code == 200, response.text
        found.append(response.json)
        link = response.headers.get("Link")
        next_path = link and "?".join(urlsplit(link.removeprefix("<").removesuffix('>; rel="next"'))[2:4])
    return found


@pytest.fixture
def various(alice: User) -> User:
    """alice, with tasks that differ in every sort key and share some values of each."""
    for n, (title, priority, due, position) in enumerate(
        [
            ("banana", "low", "2026-12-31", 3),
            ("Apple", "high", None, 1.5),
            ("cherry", "medium", "2026-12-31T12:00:00Z", -2),
            ("apple", "medium", None, 1.5),
            ("Ähre", "high", "2026-12-30T23:00:00-02:00", 0),
            ("éclair", "low", None, 3),
            ("Zebra", "medium", "2026-12-31T00:00:00Z", 9),
        ]
    ):
        task = alice.create(title, priority=priority, due_date=due, position=position, completed=n % 3 == 0)
        if n % 2:
            alice.patch(f"/api/tasks/{task['id']}", json={"description": "touched"})
    return alice


PRIORITY = {"low": 1, "medium": 2, "high": 3}
KEYS: dict[str, Any] = {
    "created_at": lambda task: task["created_at"],
    "updated_at": lambda task: task["updated_at"],
    "completed_at": lambda task: task["completed_at"],
    "due_date": lambda task: {None: None}.get(
        task["due_date"], {"2026-12-31": "2026-12-31T00:00:00Z"}.get(task["due_date"], task["due_date"])
    ),
    "priority": lambda task: PRIORITY[task["priority"]],
    "title": lambda task: task["title"].casefold(),
    "position": lambda task: task["position"],
}


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", list(SORTS))
@pytest.mark.parametrize("limit", [1, 2, 3, 1000])
def test_every_sort_key_in_every_page_size(various: User, sort: str, order: str, limit: int) -> None:
    tasks = various.get("/api/tasks").json
    key, down = KEYS[sort], order == "desc"
    having = sorted((t for t in tasks if key(t) is not None), key=lambda t: (key(t), t["id"]), reverse=down)
    lacking = sorted((t for t in tasks if key(t) is None), key=lambda t: t["id"], reverse=down)
    found = pages(various, f"/api/tasks?sort={sort}&order={order}&limit={limit}")
    assert [task["title"] for page in found for task in page] == [task["title"] for task in having + lacking]
    assert all(len(page) == limit for page in found[:-1])


@pytest.mark.parametrize(
    ("query", "same_as"),
    [
        ("", "sort=created_at&order=desc"),
        ("sort=created", "sort=created_at&order=desc"),
        ("sort=newest", "sort=created_at&order=desc"),
        ("sort=oldest", "sort=created_at&order=asc"),
        ("sort=createdAt&order=asc", "sort=created_at&order=asc"),
        ("sort=dueDate", "sort=due_date&order=asc"),
        ("sort=completedAt", "sort=completed_at&order=desc"),
        ("sort=title", "sort=title&order=asc"),
        ("sort=priority", "sort=priority&order=desc"),
        ("status=all", ""),
        ("limit=1000", ""),
        ("deleted=false", ""),
    ],
)
def test_defaults_and_other_spellings(various: User, query: str, same_as: str) -> None:
    assert various.get(f"/api/tasks?{query}").json == various.get(f"/api/tasks?{same_as}").json


def test_status(various: User) -> None:
    tasks = various.get("/api/tasks").json
    for status, completed in (("completed", True), ("pending", False)):
        expected = [task for task in tasks if task["completed"] is completed]
        assert various.get(f"/api/tasks?status={status}").json == expected
        assert [task for page in pages(various, f"/api/tasks?status={status}&limit=1") for task in page] == expected


def test_pages_while_tasks_come_and_go(alice: User) -> None:
    """Nothing twice, nothing skipped: what was there from the beginning is listed exactly once."""
    titles = [alice.create(f"{n}")["title"] for n in range(9)]
    path: str | None = "/api/tasks?limit=2&sort=created_at&order=asc"
    seen: list[str] = []
    while path:
        response = alice.get(path)
        seen += [task["title"] for task in response.json]
        alice.create("new")
        alice.delete(f"/api/tasks/{response.json[0]['id']}")
        link = response.headers.get("Link") if len(seen) < 9 else None
        path = link and "?".join(urlsplit(link[1:].partition(">")[0])[2:4])
    assert seen[:9] == titles


@dataclass
class Reader(User):
    """Lets four writers put in a task each while it reads a page, and waits for them before it goes on."""

    writes: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    written: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def get(self, path: str, **options: Any) -> Any:
        self.writes.release(4)
        page = super().get(path, **options)
        assert all(self.written.acquire(timeout=10) for _ in range(4))
        return page


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", list(SORTS))
def test_pages_while_others_insert(alice: User, sort: str, order: str) -> None:
    """Before, behind and between the tasks that are there, which come all, and nothing comes twice."""
    draw = random.Random(f"{sort} {order}")

    def fields() -> dict[str, Any]:
        due_date = draw.choice([None, f"20{draw.randint(10, 99)}-01-01"])
        priority = draw.choice(["low", "medium", "high"])
        return {"title": f"{draw.random()}", "position": draw.random(), "due_date": due_date, "priority": priority}

    operations = [{"op": "create", "task": fields()} for _ in range(60)]
    results = alice.post("/api/tasks/batch", json={"operations": operations}).json["results"]
    reader = Reader(alice.id, alice.client, alice.token)
    over = threading.Event()
    inserted: set[str] = set()

    def insert() -> None:
        user = again(alice)
        while reader.writes.acquire(timeout=10) and not over.is_set():
            inserted.add(user.create(**fields())["id"])
            reader.written.release()

    with ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(insert) for _ in range(4)]
        # Pages are larger than what is put in meanwhile, so they come to an end.
        found = pages(reader, f"/api/tasks?sort={sort}&order={order}&limit=9")
        over.set()
        reader.writes.release(4)
        for writer in writers:
            writer.result(timeout=30)
    seen = [task["id"] for page in found for task in page]
    there = {result["task"]["id"] for result in results}
    assert len(seen) == len(set(seen))
    assert there <= set(seen) <= there | inserted
    assert len(inserted) == 4 * len(found)


def test_link_keeps_the_other_parameters(various: User) -> None:
    link = various.get(f"/api/{various.id}/tasks?status=pending&limit=1&x=%C3%A4&sort=title").headers["Link"]
    assert link.startswith(
        f"<http://localhost/api/{various.id}/tasks?status=pending&limit=1&x=%C3%A4&sort=title&cursor="
    )
    assert "Link" not in various.get("/api/tasks").headers


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *((f"limit={value}", "limit") for value in ("0", "1001", "-1", "x", "1.5", "1_0", "१", "", "1&limit=2")),
        *((f"status={value}", "status") for value in ("", "done", "PENDING", "all&status=all")),
        *((f"sort={value}", "sort") for value in ("", "id", "user_id", "title; DROP TABLE tasks")),
        *((f"order={value}", "order") for value in ("", "up", "DESC")),
        *((f"deleted={value}", "deleted") for value in ("", "yes", "2")),
        *((f"cursor={value}", "cursor") for value in ("", "x", "%00", "W10", "eyJhIjoxfQ", "WzEsMiwzXQ", "é")),
    ],
)
def test_bad_parameter_is_refused_by_name(alice: User, query: str, field: str) -> None:
    """OWASP ASVS 5.0 V2.2.1, V15.3.5 and V15.3.7."""
    assert assert_problem(alice.get(f"/api/tasks?{query}"), 422)["errors"][0]["field"] == field


def cursor_of(user: User, query: str) -> str:
    link: str = user.get(f"/api/tasks?{query}").headers["Link"]
    return link.partition("cursor=")[2].partition(">")[0]


def test_cursor_belongs_to_its_list_and_its_user(various: User, bob: User) -> None:
    """OWASP API1:2023."""
    cursor = cursor_of(various, "limit=1")
    assert various.get(f"/api/tasks?cursor={cursor}").status_code == 200
    for query in ("sort=title", "order=asc", "status=pending", "deleted=true"):
        assert_problem(various.get(f"/api/tasks?{query}&cursor={cursor}"), 422)
    assert_problem(bob.get(f"/api/tasks?cursor={cursor}"), 422)


def test_a_cursor_belongs_to_its_list_in_every_process() -> None:
    """Each has an order of its own in which it goes through a set."""
    query = "dict(tz=UTC, priority=['low'], tag=['a'], category='b', deleted=False, count=False)"
    program = (
        "from datetime import UTC; from todo_service.tasks.listing import wanted; "
        f"listing, values = wanted({query}, None); print(listing.name('alice', values))"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(6)
    }
    assert len(names) == 1


@pytest.mark.parametrize("sort", list(SORTS))
def test_forged_place_is_refused_or_harmless(various: User, sort: str) -> None:
    """OWASP ASVS 5.0 V2.2.1: its maker can put anything in it, and the worst result is a page of their own tasks."""
    cursor = cursor_of(various, f"limit=1&sort={sort}&order=asc")
    mark, _, id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    keys: list[Any] = [
        None,
        True,
        10**18,
        -(10**18),
        1.5,
        "x",
        "a\0",
        "0001-01-01T00:00:00+00:00",
        "9999-12-31T23:59:59+14:00",
        [],
        {},
    ]
    for key, forged_id in itertools.product(keys, (id, "x", None, 7)):
        forged = base64.urlsafe_b64encode(orjson.dumps([mark, key, forged_id])).decode().rstrip("=")
        response = various.get(f"/api/tasks?sort={sort}&order=asc&cursor={forged}")
        assert response.status_code in (200, 422), (key, forged_id, response.text)


@pytest.mark.parametrize("sort", ["created_at", "updated_at", "completed_at", "due_date"])
@pytest.mark.parametrize(
    "key",
    [
        *(f"2026-01-01T00:00:00{offset}" for offset in ("+16:00", "+01:00", "-23:59:59.999999", "+00:00:01", "")),
        *("2026-01-01", "1969-12-31T23:59:59+00:00", "0001-01-01T00:00:00+00:00", "0001-01-01T00:00:00+23:59"),
        *("9999-12-31T23:59:59-00:01", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59+14:00"),
    ],
)
def test_forged_time_is_refused(various: User, sort: str, key: str) -> None:
    """A time in a cursor is one that the service could have written: in UTC, of the years that it keeps."""
    cursor = cursor_of(various, f"limit=1&sort={sort}&order=asc")
    mark, _, id = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    forged = base64.urlsafe_b64encode(orjson.dumps([mark, key, id])).decode().rstrip("=")
    problem = assert_problem(various.get(f"/api/tasks?sort={sort}&order=asc&cursor={forged}"), 422, "invalid")
    assert problem["errors"][0]["field"] == "cursor"


def test_pages_at_both_ends_of_the_calendar(alice: User) -> None:
    ends = ["1970-01-01T00:00:00Z", "1970-01-01", "9999-12-31", "9999-12-31T23:59:59.999999Z"]
    for end in ends:
        alice.create(due_date=end)
    found = [task["due_date"] for page in pages(alice, "/api/tasks?sort=due_date&limit=1") for task in page]
    assert sorted(found) == sorted(ends)


def test_list_is_revalidated_by_its_etag(alice: User, bob: User) -> None:
    # Of somebody who has never made anything, nothing is known that would tell this answer from others.
    for headers in ({}, {"If-None-Match": '"0"'}, {"If-None-Match": "*"}):
        empty = alice.get("/api/tasks", headers=headers)
        assert (empty.status_code, empty.json, empty.headers.get("ETag")) == (200, [], None)
    task = alice.create()
    response = alice.get("/api/tasks", headers={"If-None-Match": '"0", "1"'})
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert set(response.vary) == {"Authorization", "Origin"}
    etag = response.headers["ETag"]
    bob.create()
    for tag in (etag, f"W/{etag}", f'"x", {etag}'):
        again = alice.get("/api/tasks?limit=5", headers={"If-None-Match": tag})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", etag)
        assert again.headers["Cache-Control"] == "private, no-cache"
    changes: list[Callable[[], Any]] = [
        lambda: alice.patch(f"/api/tasks/{task['id']}", json={"title": "x"}),
        lambda: alice.patch(f"/api/tasks/{task['id']}/complete"),
        lambda: alice.delete(f"/api/tasks/{task['id']}"),
        lambda: alice.post(f"/api/tasks/{task['id']}/restore"),
        lambda: alice.delete("/api/tasks?status=all"),
        lambda: alice.delete(f"/api/tasks/{task['id']}?permanent=true"),
    ]
    for change in changes:
        etag = alice.get("/api/tasks").headers["ETag"]
        assert change().status_code == 200
        assert alice.get("/api/tasks", headers={"If-None-Match": etag}).status_code == 200


def test_head_is_get_without_the_body(various: User) -> None:
    get, head = (various.request(method, "/api/tasks") for method in ("GET", "HEAD"))
    assert head.status_code == 200
    assert head.data == b""
    for name in ("ETag", "Content-Type", "Content-Length"):
        assert head.headers[name] == get.headers[name]

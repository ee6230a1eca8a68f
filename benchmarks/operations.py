"""What a user does with their tasks, each as one request through the service's own WSGI app.

A list is asked for by each sort key in both orders, at its start and from a cursor in its middle; and by each filter.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, NamedTuple

from flask import Flask
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from benchmarks.population import ABSENT, RARE
from tests.conftest import token
from todo_service.db.session import Session
from todo_service.tasks import feed, retention
from todo_service.tasks.listing import SORTS


class TooSlowError(Exception):
    """The service has given up at a deadline, which may be due to what else the machine does."""


class Subject:
    """A user of a populated database, and what their requests need to name."""

    def __init__(self, app: Flask, id: str, stranger: str) -> None:
        self.id = id
        self.engine: Engine = app.extensions["engine"]
        self._client = app.test_client()
        self._token, self._stranger = token(id), stranger

    def ask(self, method: str, path: str, status: int = 200, **options: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self._token}"} | options.pop("headers", {})
        response = self._client.open(f"/api/tasks{path}", method=method, headers=headers, **options)
        if response.status_code == 503:
            raise TooSlowError(f"{method} {path}: {response.text}")
        assert response.status_code == status, response.text
        return response

    @cached_property
    def task(self) -> str:
        """The id of a task from the middle that doesn't repeat."""
        tasks: Any = self.ask("GET", f"?limit=20&offset={self.middle}").json
        return next(str(task["id"]) for task in tasks if not task["recurrence"])

    @cached_property
    def foreign(self) -> str:
        """The id of a task of the stranger's."""
        headers = {"Authorization": f"Bearer {token(self._stranger)}"}
        tasks: Any = self._client.get("/api/tasks?limit=1", headers=headers).json
        return str(tasks[0]["id"])

    @cached_property
    def middle(self) -> int:
        return int(self.ask("GET", "?limit=1&count=true").headers["X-Total-Count"]) // 2

    def deep(self, query: str) -> str:
        """The address of the page in the middle of the list `query`."""
        offset = f"&offset={self.middle}"
        link = self.ask("GET", f"?{query}&limit=20{offset}").headers["Link"]
        return link.partition("/api/tasks")[2].partition(">")[0].replace(offset, "")

    def since(self, number: int | None) -> str:
        """A sync token from `number` changes ago."""
        revision, _, nonce = self.ask("GET", "?limit=1").headers["ETag"].strip('"').partition("-")
        whole = int(revision)
        return feed.encode(self.id, feed.Token(whole, whole - 2 * (number or 0), feed.LAST_ID, nonce))


class Operation(NamedTuple):
    """`prepare` does what isn't measured and gives what is. `kept`: it must cost the same in a database of any size."""

    name: str
    prepare: Callable[[Subject], Callable[[], object]]
    kept: bool = False
    cleanup: Callable[[Subject, Any], object] = lambda _subject, _result: None


def _read(path: str, **options: Any) -> Callable[[Subject], Callable[[], object]]:
    return lambda subject: partial(subject.ask, "GET", path, **options)


def _deep(query: str) -> Callable[[Subject], Callable[[], object]]:
    return lambda subject: partial(subject.ask, "GET", subject.deep(query))


def _change(method: str, path: str, json: Any = None) -> Callable[[Subject], Callable[[], object]]:
    return lambda subject: partial(subject.ask, method, f"/{subject.task}{path}", json=json)


def _poll(subject: Subject) -> Callable[[], object]:
    etag = subject.ask("GET", "?limit=1").headers["ETag"]
    return partial(subject.ask, "GET", "", 304, headers={"If-None-Match": etag})


class UndoneError(Exception):
    """Ends a transaction that was measured, so that it can be measured again."""


def _undone(query: Any) -> Callable[[Subject], Callable[[], object]]:
    def run(subject: Subject) -> None:
        with suppress(UndoneError), Session(subject.engine, unscoped=True) as session, session.transaction():
            session.execute(query, retention.ages() | {"owner": subject.id, "busy": []})
            raise UndoneError

    return lambda subject: partial(run, subject)


def _remove(subject: Subject, created: TestResponse) -> None:
    subject.ask("DELETE", f"/{created.get_json()['id']}?permanent=true")


def operations(now: datetime) -> list[Operation]:
    """All of them."""
    day, week = now.date(), (now + timedelta(days=7)).date()
    absent = "00000000-0000-7000-8000-000000000000"
    orders = [f"sort={key}&order={order}" for key in SORTS for order in ("asc", "desc")]
    filters = {
        "status=pending": "status=pending",
        "status=completed": "status=completed",
        "priority=high": "priority=high",
        "tag": "tag=garden",
        "two tags": "tag=garden&tag=work",
        "tag of none": f"tag={ABSENT}",
        "due before": f"due_before={day}",
        "due this week": f"due_after={day}&due_before={week}",
        "overdue": "overdue=true",
        "search, one in a hundred": f"search={RARE}",
        "search, none": f"search={ABSENT}",
        "search, three words": "search=gran+sol+mar",
        "pending by due date": "status=pending&sort=due_date",
        "completed, latest": "status=completed&sort=updated_at",
    }
    return [
        Operation("list, 20", _read("?limit=20"), kept=True),
        Operation("list, 1000", _read(""), kept=True),
        Operation("list, 20, from the middle", _deep("sort=created_at"), kept=True),
        Operation("list, 20, by offset", lambda one: partial(one.ask, "GET", f"?limit=20&offset={one.middle}")),
        Operation("list, count", _read("?limit=20&count=true"), kept=True),
        Operation("list, 304", _poll, kept=True),
        *(Operation(f"list, {order}", _read(f"?limit=20&{order}"), kept=True) for order in orders),
        *(Operation(f"list, {order}, 1000", _read(f"?{order}"), kept=True) for order in orders),
        *(Operation(f"list, {order}, from the middle", _deep(order), kept=True) for order in orders),
        *(Operation(f"list, {name}", _read(f"?limit=20&{query}"), kept=True) for name, query in filters.items()),
        *(Operation(f"list, {name}, 1000", _read(f"?{query}"), kept=True) for name, query in filters.items()),
        Operation("list, search and count", _read(f"?limit=20&count=true&search={RARE}"), kept=True),
        Operation("trash", _read("?limit=20&deleted=true"), kept=True),
        Operation("trash, 1000", _read("?deleted=true"), kept=True),
        Operation("changes, all", _read("/changes"), kept=True),
        Operation("changes, the last ten", lambda one: _read(f"/changes?since={one.since(10)}")(one), kept=True),
        Operation("changes, none", lambda one: _read(f"/changes?since={one.since(0)}")(one), kept=True),
        Operation("stats", _read("/stats")),
        Operation("get", lambda one: partial(one.ask, "GET", f"/{one.task}"), kept=True),
        Operation("get, another user's: 403", lambda one: partial(one.ask, "GET", f"/{one.foreign}", 403), kept=True),
        Operation("get, nobody's: 404", _read(f"/{absent}", status=404), kept=True),
        Operation(
            "create", lambda one: partial(one.ask, "POST", "", 201, json={"title": "Buy milk"}), kept=True,
            cleanup=_remove,
        ),
        Operation("update", _change("PATCH", "", {"title": f"Changed {now:%c}"})),
        Operation("complete", _change("PATCH", "/complete")),
        Operation("purge, whose trash", _undone(retention.OWNERS_OF_TRASH)),
        Operation("purge, a step", _undone(retention.PURGE_TRASH)),
        Operation("purge, whose tombstones", _undone(retention.OWNERS_OF_TOMBSTONES)),
        Operation("purge, a step of tombstones", _undone(retention.DROP_TOMBSTONES)),
    ]  # fmt: skip


def all_operations() -> list[Operation]:
    return operations(datetime.now(UTC))

"""The counts: held equal to a model that counts the tasks one by one."""

import unicodedata
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import psycopg2
import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2.extras import execute_batch

from tests.api.test_filters import FIRST_ZONE, LAST_ZONE, unless_the_day_ends
from tests.conftest import User, assert_problem, settings_for, user_of
from tests.support.wire import Wire
from todo_service import create_app

Task = dict[str, Any]

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", FIRST_ZONE.key, LAST_ZONE.key]
TAGS = ["home", "Home", "HOME", "work", "Straße", "STRASSE", "牛奶", 'a"b\\c']
CATEGORIES = ["Home", "home", 'a"b\\c']
DAYS = 30


def stats(user: User, tz: str = "UTC") -> Any:
    response = user.get(f"/api/tasks/stats?tz={tz}")
    assert response.status_code == 200, response.text
    return response.json


def plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def counted(tasks: list[Task], now: datetime, zone: ZoneInfo) -> Any:
    """What the counts of `tasks` are at `now`."""
    today = now.astimezone(zone).date()
    late = due_today = 0
    per_day = {(today - timedelta(days=n)).isoformat(): 0 for n in range(DAYS)}
    spellings: dict[str, list[str]] = {}
    for task in tasks:
        if task["due_date"] and not task["completed"]:
            if len(task["due_date"]) == 10:
                day = date.fromisoformat(task["due_date"])
                late += day < today
            else:
                moment = datetime.fromisoformat(task["due_date"])
                day = moment.astimezone(zone).date()
                late += moment < now
            due_today += day == today
        if task["completed"]:
            done_on = datetime.fromisoformat(task["completed_at"]).astimezone(zone).date().isoformat()
            if done_on in per_day:
                per_day[done_on] += 1
        for tag in task["tags"]:
            spellings.setdefault(plain(tag), []).append(tag)
    completed = sum(task["completed"] for task in tasks)
    return {
        "total": len(tasks),
        "completed": completed,
        "pending": len(tasks) - completed,
        "overdue": late,
        "due_today": due_today,
        "by_priority": {"low": 0, "medium": 0, "high": 0} | Counter(task["priority"] for task in tasks),
        # Of the spellings of a tag, the one that comes first in the order of code points stands for all.
        "by_category": dict(Counter(task["category"] for task in tasks if task["category"])),
        "by_tag": {min(tags): len(tags) for tags in spellings.values()},
        "completed_per_day": per_day,
    }


def test_nobody_has_nothing(alice: User, bob: User) -> None:
    bob.create(tags=["x"])
    assert unless_the_day_ends(
        (ZoneInfo("UTC"),), lambda _: stats(alice) == counted([], datetime.now(UTC), ZoneInfo("UTC"))
    )


# Days and minutes from now; no moment so close to now that it passes during the test.
fields = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from(["low", "medium", "high"]),
        "category": st.sampled_from(CATEGORIES),
        "tags": st.lists(st.sampled_from(TAGS), max_size=4),
        "due": st.integers(-3, 3)
        | st.integers(-3 * 24 * 60, 3 * 24 * 60).filter(lambda n: abs(n) > 2).map(lambda n: n / 1440),
        "done": st.integers(0, 34 * 24 * 60).map(lambda n: n / 1440),
        "trashed": st.just(True),
    },
)


def complete(url: str, moments: list[tuple[str, datetime]]) -> None:
    """Set when tasks were completed, which nobody can tell the service to believe."""
    sql = "UPDATE tasks SET completed_at = %(moment)s WHERE id = %(id)s;"
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        execute_batch(cursor, sql, [{"id": id, "moment": moment} for id, moment in moments])
    connection.close()


def make(user: User, wanted: list[Any], now: datetime, url: str) -> list[Task]:
    """Tasks as `wanted`; those that are live."""
    operations = []
    for fields in wanted:
        task = {name: fields[name] for name in ("priority", "category", "tags") if name in fields}
        if "due" in fields:
            due = now + timedelta(days=fields["due"])
            task["due_date"] = due.date().isoformat() if isinstance(fields["due"], int) else due.isoformat()
        operations.append({"op": "create", "task": task | {"title": "x", "completed": "done" in fields}})
    if not operations:
        return []
    results = user.post("/api/tasks/batch", json={"operations": operations}).json["results"]
    ids = [result["task"]["id"] for result in results]
    trash = [{"op": "delete", "id": id} for id, fields in zip(ids, wanted, strict=True) if "trashed" in fields]
    assert not trash or user.post("/api/tasks/batch", json={"operations": trash}).status_code == 200
    done = [
        (id, now - timedelta(days=fields["done"])) for id, fields in zip(ids, wanted, strict=True) if "done" in fields
    ]
    complete(url, done)
    tasks: list[Task] = user.get("/api/tasks").json
    return tasks


@settings(max_examples=60, deadline=None)
@given(wanted=st.lists(fields, max_size=30))
def test_counts_are_what_the_model_says(app: Flask, database_url: str, wanted: list[Any]) -> None:
    user, now = user_of(app, "model"), datetime.now(UTC)
    tasks = make(user, wanted, now, database_url)
    assert len(tasks) == sum("trashed" not in fields for fields in wanted)
    for zone in map(ZoneInfo, ZONES):
        found, expected = unless_the_day_ends(
            (zone,), lambda _, zone=zone: (stats(user, zone.key), counted(tasks, datetime.now(UTC), zone))
        )
        assert found == expected, zone


def test_days_begin_where_the_user_is(app: Flask) -> None:
    def ask(first: date, last: date) -> list[Any]:
        user = user_of(app, "travels")
        user.create(due_date=first.isoformat(), completed=False)
        user.create(due_date=last.isoformat(), tags=["x"])
        user.create(completed=True)
        return [first, last, stats(user, FIRST_ZONE.key), stats(user, LAST_ZONE.key)]

    first, last, in_first, in_last = unless_the_day_ends((FIRST_ZONE, LAST_ZONE), ask)
    assert (in_first["due_today"], in_first["overdue"]) == (1, 1)
    assert (in_last["due_today"], in_last["overdue"]) == (1, 0)
    assert list(in_first["completed_per_day"])[-1] == first.isoformat()
    assert list(in_last["completed_per_day"])[-1] == last.isoformat()
    for counts, today in ((in_first, first), (in_last, last)):
        assert counts["completed_per_day"][today.isoformat()] == 1
        assert sum(counts["completed_per_day"].values()) == 1
        assert len(counts["completed_per_day"]) == DAYS


def test_midnight_in_the_users_zone_parts_the_days(app: Flask, database_url: str) -> None:
    """A microsecond before midnight is yesterday; DST changes or not."""
    for name in ZONES:
        zone = ZoneInfo(name)

        def ask(today: date, zone: ZoneInfo = zone) -> tuple[date, Any]:
            user = user_of(app, "midnight")
            moments = []
            for days in range(DAYS + 1):
                day = today - timedelta(days=days)
                midnight = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
                moments += [midnight, midnight - timedelta(microseconds=1)]
            operations = [{"op": "create", "task": {"title": "x", "completed": True}}] * len(moments)
            results = user.post("/api/tasks/batch", json={"operations": operations}).json["results"]
            ids = [result["task"]["id"] for result in results]
            complete(database_url, list(zip(ids, moments, strict=True)))
            return today, stats(user, zone.key)["completed_per_day"]

        today, per_day = unless_the_day_ends((zone,), ask)
        days = [(today - timedelta(days=days)).isoformat() for days in range(DAYS)]
        assert per_day == {day: 1 if day == days[0] else 2 for day in days}


@pytest.mark.parametrize("tz", ["", "Mars", "UTC&tz=UTC", "../UTC", "%00"])
def test_bad_time_zone_is_refused_by_name(alice: User, tz: str) -> None:
    problem = assert_problem(alice.get(f"/api/tasks/stats?tz={tz}"), 422, "invalid")
    assert problem["errors"][0]["field"] == "tz"


def test_nothing_is_taken_for_unchanged(alice: User) -> None:
    """What is late or due today changes with the time, so there is no ETag."""
    response = alice.get("/api/tasks/stats", headers={"If-None-Match": '"0"'})
    assert response.status_code == 200
    assert "ETag" not in response.headers
    assert response.headers["Cache-Control"] == "no-store"


def test_both_families(alice: User, bob: User) -> None:
    alice.create()
    assert alice.get(f"/api/{alice.id}/tasks/stats/").json["total"] == 1
    assert_problem(bob.get(f"/api/{alice.id}/tasks/stats"), 403)


def test_it_is_one_round_trip(database_url: str) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        for n in range(20):
            user.create(tags=[f"{n}"], completed=n % 2 == 0, due_date="2020-01-01")
        wire.reset()
        assert stats(user, "Europe/Berlin")["overdue"] == 10
        assert len(wire.queries) == 1

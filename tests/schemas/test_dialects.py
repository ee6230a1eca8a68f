"""Frontends that say things in their own way: each option of API_DIALECT and combinations of them.

`conversations.txt` beside this module has what they send and get; what is said of dialects elsewhere is tested here.
"""

import json
import os
import re
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask

from tests.conftest import ORIGIN, SECRET, User, again, assert_problem, settings_for, user_of
from todo_service import create_app
from todo_service.config import ROOT, SettingsError
from todo_service.dialect import OPTIONS, Dialect, parse

FULL = (
    "list=tasks one=task done=is_completed verbs=toggle,status paths=/api/todos,/api/v1/todos tags=, error=error "
    "none=NONE title=description priority=P3/P2/P1 names=position:order,due_date:dueDate url=url sweep=all"
)
ACTIONS = {"list", "create", "update", "complete", "reopen", "delete", "invalid", "stranger"}


class Exchange(NamedTuple):
    action: str
    method: str
    path: str
    body: str
    status: int
    answer: Any


def conversations() -> Iterator[tuple[str, list[Exchange]]]:
    text = Path(__file__).with_name("conversations.txt").read_text()
    request = re.compile(r"^(\w+) +([A-Z]+) (\S+)(?: (.+))?\n +(\d{3}) (.+)$", flags=re.MULTILINE)
    for section in text.split("=== ")[1:]:
        dialect, _, rest = section.partition("\n")
        found = [
            Exchange(action, method, path, body, int(status), json.loads(answer))
            for action, method, path, body, status, answer in request.findall(rest)
        ]
        assert len(found) * 2 == len(rest.strip().splitlines()), dialect
        yield dialect, found


CONVERSATIONS = dict(conversations())


@pytest.fixture(scope="module")
def speaking(database_url: str) -> Any:
    """Makes the app of a dialect; all of them live in this one process."""

    @cache
    def make(dialect: str) -> Flask:
        return create_app(settings_for(database_url, dialect=parse(dialect)))

    return make


def like(expected: Any, found: Any) -> bool:
    """Whether an answer is as expected, which names some members of its objects."""
    match expected:
        case dict():
            return isinstance(found, dict) and all(
                name in found and like(value, found[name]) for name, value in expected.items()
            )
        case list():
            return isinstance(found, list) and len(found) == len(expected) and all(map(like, expected, found))
        case str():
            return isinstance(found, str) and fnmatchcase(found, expected)
    return isinstance(found, bool) is isinstance(expected, bool) and bool(found == expected)


def filled(text: str, alice: User, id: str) -> str:
    return text.replace("$alice", alice.id).replace("$id", id)


def test_every_option_has_a_conversation_and_so_have_combinations() -> None:
    single = [dialect for dialect in CONVERSATIONS if " " not in dialect]
    assert {dialect.partition("=")[0] for dialect in single} == set(OPTIONS)
    assert len(CONVERSATIONS) - len(single) >= 8


class ByCookie(User):
    """Somebody whose browser has the token in a cookie, on a page of a listed origin."""

    def request(self, method: str, path: str, **options: Any) -> Any:
        return self.client.open(path, method=method, headers={"Origin": ORIGIN}, **options)


def speaker_of(app: Flask, name: str, cookie: str | None) -> User:
    user = user_of(app, name)
    if cookie is None:
        return user
    user.client.set_cookie(cookie, user.token, domain="localhost")
    return ByCookie(user.id, user.client, user.token)


@pytest.mark.parametrize(("dialect", "exchanges"), CONVERSATIONS.items(), ids=CONVERSATIONS)
def test_conversation(speaking: Any, dialect: str, exchanges: list[Exchange]) -> None:
    assert {exchange.action for exchange in exchanges} >= ACTIONS
    app = speaking(dialect)
    (alice, bob), id = (speaker_of(app, name, parse(dialect).cookie) for name in ("alice", "bob")), ""
    for exchange in exchanges:
        speaker = bob if exchange.action == "stranger" else alice
        sent = {"data": exchange.body, "content_type": "application/json"} if exchange.body else {}
        answer = speaker.request(exchange.method, filled(exchange.path, alice, id), **sent)
        body = answer.get_json(force=True)
        assert answer.status_code == exchange.status, (exchange, body)
        if exchange.status == 201:
            id = answer.headers["Location"].rpartition("/")[2]
            assert answer.headers["Location"] == f"{filled(exchange.path, alice, id).rstrip('/')}/{id}"
        expected = json.loads(filled(json.dumps(exchange.answer), alice, id))
        assert like(expected, body), (exchange, body)


@pytest.fixture
def user(speaking: Any) -> Any:
    """Makes a user of the app of a dialect, whom no other test has met."""
    return lambda dialect, name="alice": user_of(speaking(dialect), name)


SETTINGS = [
    ("list", ["list=", "list=my-tasks", "list=1", "list", "list=total", "list=a list=b"]),
    ("one", ["one=", "one=a.b"]),
    ("done", ["done=", "done=:a/b", "done=x:a", "done=x:a/b/c", "done=x:a/a", "done=x:a/A", "done=status"]),
    ("done", ["done=title", "done=user_id", "done=sort", "done=q", "done=completed", "done=completed:no/yes"]),
    ("verbs", ["verbs=", "verbs=toggle,", "verbs=to/ggle", "verbs=a,a", "verbs=restore", "verbs=move"]),
    ("paths", ["paths=", "paths=todos", "paths=/", "paths=/todos/", "paths=/a//b", "paths=/a?b", "paths=/api/tasks"]),
    ("paths", ["paths=/api/docs", "paths=/health/live", "paths=/api", "paths=/a,/a", "paths=/api/<user_id>/x"]),
    ("tags", ["tags=", "tags=x", "tags=,,,,", 'tags="']),
    ("error", ["error=", "error=detail", "error=code"]),
    ("none", ["none=", "none=a,b"]),
    ("title", ["title=", "title=notes"]),
    ("priority", ["priority=", "priority=a/b", "priority=a/b/c/d", "priority=a/a/b"]),
    ("names", ["names=", "names=position", "names=position:", "names=nothing:order", "names=position:title"]),
    ("names", ["names=position:x,due_date:x", "names=completed:done", "names=position:series", "names=title:a done=a"]),
    ("url", ["url=", "url=title", "url=a/b", "url=x done=x"]),
    ("sweep", ["sweep=", "sweep=pending"]),
    ("option 2", ["list=tasks canary=canary", "list=tasks canary"]),
]


@pytest.mark.parametrize(
    ("option", "text"), [(option, text) for option, texts in SETTINGS for text in texts], ids=lambda value: value
)
def test_a_bad_option_stops_the_start_and_is_named(database_url: str, option: str, text: str) -> None:
    with pytest.raises((SettingsError, ValueError)) as refused:
        create_app(settings_for(database_url, dialect=parse(text)))
    said = refused.value.problems["API_DIALECT"] if isinstance(refused.value, SettingsError) else str(refused.value)
    assert re.match(rf"{option}(:| is)", said)
    assert said.endswith(".")
    assert "canary" not in said


def test_blank_is_the_contract() -> None:
    assert parse("") == parse("  ") == Dialect()
    assert Dialect().mark == ""


def test_options_may_stand_in_any_order() -> None:
    there, back = "list=a done=b:c/d sweep=all", "sweep=all list=a done=b:c/d"
    assert parse(there) == parse(back)
    assert parse(there).mark == parse(back).mark != parse("list=a").mark


def test_a_batch_speaks_it(user: Any) -> None:
    alice = user(FULL)
    operations: list[dict[str, Any]] = [
        {"op": "create", "task": {"description": "Buy milk", "dueDate": "2026-12-31", "tags": "a,b", "priority": "P1"}},
        {"op": "create", "task": {"title": "Buy tea", "completed": False, "is_completed": True}},
    ]
    results = alice.post("/api/todos/batch", json={"operations": operations}).json["results"]
    milk, tea = (result["task"] for result in results)
    assert like({"title": "Buy milk", "dueDate": "2026-12-31", "tags": "a,b", "priority": "P1"}, milk)
    assert milk["url"] == f"http://localhost/api/todos/{milk['id']}"
    assert tea["is_completed"] is True
    operations = [
        {"op": "update", "id": milk["id"], "task": {**milk, "order": 9, "is_completed": True}},
        {"op": "complete", "id": tea["id"], "is_completed": False},
    ]
    results = alice.post("/api/todos/batch", json={"operations": operations}).json["results"]
    assert [(result["task"]["order"], result["task"]["is_completed"]) for result in results] == [(9, True), (2, False)]


@pytest.mark.parametrize(
    ("operation", "field"),
    [
        ({"op": "create", "task": {"text": "x", "dueDate": "soon"}}, "operations.0.task.dueDate"),
        ({"op": "create", "task": {}}, "operations.0.task.text"),
        ({"op": "create"}, "operations.0.task"),
        ({"op": "create", "task": 7}, "operations.0.task"),
        ({"op": "update", "id": "x", "task": {}}, "operations.0.id"),
        ({"op": "complete", "id": "0197c9a4-6d2f-7c3e-9b41-404404404404", "ready": 1}, "operations.0.ready"),
    ],
    ids=str,
)
def test_a_batch_names_the_clients_fields(user: Any, operation: dict[str, Any], field: str) -> None:
    answer = user("names=title:text,due_date:dueDate done=ready").post(
        "/api/tasks/batch", json={"operations": [operation]}
    )
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json(force=True)["errors"]] == [field]


def test_what_is_found_wrong_later_is_named_as_the_client_does(user: Any) -> None:
    alice = user("names=recurrence:repeat,due_date:dueDate")
    body = {"title": "x", "repeat": "daily"}
    said = "repeat: Needs a dueDate."
    for path, sent in (("/api/tasks", body), ("/api/tasks/import", [body])):
        problem = alice.post(path, json=sent).get_json(force=True)
        assert problem["detail"] == (said if path == "/api/tasks" else f"tasks.0: {said}")
    theirs = alice.post("/api/tasks", json={"title": "x", "recurrence": "daily", "due_date": None})
    assert theirs.get_json(force=True)["errors"] == [{"field": "recurrence", "message": "Needs a due_date."}]


def test_what_is_refused_before_its_body_is_read(user: Any) -> None:
    """The body may be one that can't be."""
    alice = user("names=due_date:dueDate")
    path = "/api/tasks/0197c9a4-6d2f-7c3e-9b41-404404404404?tz=nonsense"
    answer = alice.patch(path, data=b" " * (1 << 20) + b"{}", content_type="application/json")
    assert [error["field"] for error in assert_problem(answer, 422, "invalid")["errors"]] == ["tz"]


def test_a_file_in_json_speaks_it_and_loses_nothing(user: Any) -> None:
    alice, bob = user(FULL), user(FULL, "bob")
    milk = {
        "title": "Milk",
        "tags": "a,b",
        "priority": "P3",
        "order": 4,
        "dueDate": "2026-12-31",
        "recurrence": "daily",
    }
    for fields in (milk, {"title": "Tea", "is_completed": True}):
        assert alice.post("/api/todos", json=fields).status_code == 201
    alice.patch(f"/api/todos/{alice.get('/api/todos').json['tasks'][1]['id']}/toggle")
    file = alice.get("/api/todos/export").json
    assert like({"tags": "a,b", "priority": "P3", "order": 4, "is_completed": True}, file["tasks"][0])
    strict = {"Prefer": "handling=strict"}
    assert bob.post("/api/todos/import", json=file, headers=strict).json == {"created": 3, "skipped": 0}
    mine, theirs = (person.get("/api/todos/export").json["tasks"] for person in (alice, bob))
    for one, other in zip(mine, theirs, strict=True):
        assert one.keys() == other.keys()
        assert {name for name in one if one[name] != other[name]} <= {"user_id", "version"}
    # As a list is answered, too.
    listed = alice.get("/api/todos").json
    assert user(FULL, "carol").post("/api/todos/import", json=listed).json["created"] == 3


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"text": "x", "dueDate": "soon"}, "tasks.0: dueDate: Must be a date"),
        ({"dueDate": None}, "tasks.0: text: Missing data"),
        ({"text": "x", "status": "later"}, "tasks.0: status: Must be open or shut."),
        ({"text": "x", "prio": "P9"}, "tasks.0: prio: Must be one of: P3, P2, P1."),
        ({"text": "x", "nonsense": 1}, "tasks.0: nonsense: Unknown field."),
    ],
    ids=str,
)
def test_a_file_is_refused_by_the_clients_names(user: Any, entry: dict[str, Any], said: str) -> None:
    alice = user("names=title:text,due_date:dueDate,priority:prio done=status:open/shut priority=P3/P2/P1 url=url")
    answer = alice.post("/api/tasks/import", json=[entry], headers={"Prefer": "handling=strict"})
    assert answer.status_code == 422
    assert answer.get_json(force=True)["detail"].startswith(said)
    assert alice.get("/api/tasks").json == []


def test_other_files_are_as_ever(user: Any) -> None:
    alice = user(FULL)
    alice.post("/api/todos", json={"title": "Milk", "priority": "P1", "tags": "a,b"})
    for form, kind in (("csv", "text/csv"), ("ics", "text/calendar")):
        file = alice.get(f"/api/todos/export?format={form}").data
        assert b"P1" not in file
        headers = {"Content-Type": kind}
        answer = user(FULL, "bob").post("/api/todos/import", data=file, headers=headers)
        assert answer.json == {"created": 1, "skipped": 0}
    assert "order" not in alice.get("/api/todos/export?format=csv").text.splitlines()[0]


def test_links_lead_on_in_the_same_family(user: Any) -> None:
    alice = user(FULL)
    for number in range(3):
        alice.post("/api/todos", json={"title": f"{number}", "dueDate": f"2026-12-0{number + 1}"})
    for path in ("/api/todos", f"/api/{alice.id}/todos", "/api/v1/todos/", f"/api/v1/{alice.id}/todos", "/api/tasks"):
        address, titles = f"{path}?sort=dueDate&order=desc&limit=1&is_completed=false", []
        while address:
            answer = alice.get(address)
            titles += [task["title"] for task in answer.json["tasks"]]
            assert answer.json["total"] == 3
            link = answer.headers.get("Link", "").partition(">")[0].removeprefix("<http://localhost")
            assert link.startswith(f"{path}?") or not link
            address = link
        assert titles == ["2", "1", "0"]


def test_strict_knows_the_other_names(user: Any) -> None:
    alice, strict = user(FULL), {"Prefer": "handling=strict"}
    fields = {"title": "x", "order": 1, "dueDate": None, "is_completed": True, "tags": "a"}
    created = alice.post("/api/todos", json=fields, headers=strict)
    assert (created.status_code, created.headers["Preference-Applied"]) == (201, "handling=strict")
    assert alice.get("/api/todos?is_completed=true&sort=order", headers=strict).status_code == 200
    for unknown in ({"due": None}, {"url": "x"}, {"version": 1}):
        assert alice.post("/api/todos", json={"title": "x"} | unknown, headers=strict).status_code == 422
    assert alice.get("/api/todos?due=x", headers=strict).status_code == 422


def test_tags_of_one_dialect_are_none_of_another(speaking: Any) -> None:
    """A changed setting must not leave browsers with answers in the old one."""
    contract, other, full = speaking(""), speaking("done=done"), speaking(FULL)
    alice = user_of(contract, "alice")
    others = [User(alice.id, app.test_client(), alice.token) for app in (other, full)]
    id = alice.create()["id"]
    for path in ("/api/tasks", f"/api/tasks/{id}"):
        tags = [person.get(path).headers["ETag"] for person in (alice, *others)]
        assert len(set(tags)) == 3
        for person, own in zip((alice, *others), tags, strict=True):
            for tag in tags:
                for sent in (tag, f"W/{tag}", f'"x", {tag}'):
                    status = person.get(path, headers={"If-None-Match": sent}).status_code
                    assert status == (304 if tag == own else 200), (path, tag)
            assert person.get(path, headers={"If-None-Match": own}).headers["ETag"] == own
            assert person.get(path, headers={"If-None-Match": "*"}).status_code == 304


def test_files_of_the_documentation_have_their_own_tags(user: Any) -> None:
    address, alice = "/api/docs/swagger-ui.css", user(FULL)
    tag = alice.get(address).headers["ETag"]
    assert alice.get(address, headers={"If-None-Match": tag}).status_code == 304


def test_a_change_takes_the_dialects_tag_and_the_version(user: Any) -> None:
    alice = user(FULL)
    answer = alice.post("/api/todos", json={"title": "x"})
    task, tag = answer.json["task"], answer.headers["ETag"]
    path = f"/api/todos/{task['id']}"
    assert re.fullmatch(r'"1-[0-9a-f]{12}\.[0-9a-f]{8}"', tag)
    unmarked = re.sub(r"\.\w+", "", tag)
    for stale in (unmarked, unmarked.replace('"', "") + ".00000000", '"0"', tag.replace(".", "")):
        assert alice.patch(path, json={"title": "y"}, headers={"If-Match": stale}).status_code == 412
    tag = alice.patch(path, json={"title": "y"}, headers={"If-Match": tag}).headers["ETag"]
    version = f'"{alice.get(path).json["task"]["version"]}"'
    assert tag.startswith(version[:-1])
    assert alice.patch(f"{path}/toggle", headers={"If-Match": version}).status_code == 200
    assert alice.patch(f"{path}/toggle", headers={"If-Match": version}).status_code == 412
    listed = alice.get("/api/todos").headers["ETag"]
    assert alice.delete("/api/todos", headers={"If-Match": tag}).status_code == 412
    assert alice.delete("/api/todos", headers={"If-Match": listed}).json == {"deleted": 1}


def test_pages_may_ask_for_the_dialects_addresses(speaking: Any) -> None:
    nobody, id = speaking(FULL).test_client(), "0197c9a4-6d2f-7c3e-9b41-404404404404"
    for path in ("/api/todos", f"/api/v1/alice/todos/{id}/", f"/api/todos/{id}/toggle", f"/api/tasks/{id}/status"):
        for method in ("POST", "PUT", "PATCH"):
            asked = {"Origin": ORIGIN, "Access-Control-Request-Method": method}
            answer = nobody.options(path, headers=asked)
            assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
        assert nobody.patch(path, headers={"Origin": ORIGIN}).status_code in (401, 405)


def test_a_verb_by_post_is_done_once_with_a_key(user: Any) -> None:
    alice = user("verbs=toggle")
    id, key = alice.create()["id"], {"Idempotency-Key": "one"}
    first, second = (alice.post(f"/api/tasks/{id}/toggle", headers=key) for _ in range(2))
    assert first.json == second.json
    assert second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["ETag"] == first.headers["ETag"]
    assert alice.get(f"/api/tasks/{id}").json["completed"] is True


WHOLE_BACK = [
    ("done=is_completed", "is_completed", (False, True)),
    ("done=status:INCOMPLETE/COMPLETE", "status", ("INCOMPLETE", "COMPLETE")),
]


@pytest.mark.parametrize("rule", [None, "daily"])
@pytest.mark.parametrize(("dialect", "name", "words"), WHOLE_BACK, ids=lambda value: str(value))
def test_of_two_flags_the_one_that_differs_from_what_is_stored_counts(
    user: Any, dialect: str, name: str, words: Any, rule: str | None
) -> None:
    """Clients send a whole task back with one of them flipped, be it their own name or the contract's."""
    alice = user(dialect)
    task = alice.create(due_date="2026-12-31", recurrence=rule)
    path = f"/api/tasks/{task['id']}"
    for completed in (True, False):
        for flipped, other in (({"completed": completed}, "PUT"), ({name: words[completed]}, "PATCH")):
            task = alice.get(path).json
            # Two that agree are no news; two that don't are a change.
            assert alice.put(path, json=task).json[name] == task[name]
            answer = alice.request(other, path, json=task | flipped | {"title": f"{flipped}"})
            assert (answer.json["completed"], answer.json[name]) == (completed, words[completed])
            assert answer.json["title"] == f"{flipped}"
            back = alice.put(path, json={"completed": not completed}).json
            assert back[name] == words[not completed]
        alice.put(path, json={name: words[completed]})
    stale = alice.put(path, json={"completed": True, name: words[False]}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412
    flags = {"completed": False, name: words[True]}
    assert alice.patch(f"{path}/complete", json=flags).json["completed"] is True
    assert alice.post("/api/tasks", json={"title": "x"} | flags).json["completed"] is True
    assert (
        alice.post("/api/tasks", json={"title": "x", "completed": True, name: words[False]}).json["completed"] is True
    )
    assert alice.post("/api/tasks/import", json=[{"title": "imported"} | flags]).json["created"] == 1
    [imported] = alice.get("/api/tasks?search=imported").json
    assert (imported["completed"], imported["completed_at"] is None) == (True, False)


def test_flags_that_differ_turn_it_each_time_whoever_else_does(user: Any) -> None:
    """What is stored is looked at under the lock of the change itself: none is lost or done on what was."""
    alice = user("done=is_completed")
    id = alice.create()["id"]

    def turn(number: int) -> Any:
        body = {"completed": bool(number % 2), "is_completed": not number % 2}
        return again(alice).put(f"/api/tasks/{id}", json=body)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(turn, range(21)))
    assert [answer.status_code for answer in answers] == [200] * 21
    states = {answer.json["version"]: answer.json["completed"] for answer in answers}
    assert [states[version] for version in sorted(states)] == [number % 2 == 0 for number in range(21)]


def test_apps_of_several_dialects_live_side_by_side(speaking: Any) -> None:
    alice = user_of(speaking(""), "alice")
    alice.create(tags=["a"])
    spoken = [
        User(alice.id, speaking(dialect).test_client(), alice.token).get("/api/tasks").json
        for dialect in ("", "list=tasks", "tags=,", "list=tasks tags=,", "")
    ]
    lists = [answer["tasks"] if isinstance(answer, dict) else answer for answer in spoken]
    assert [type(answer) for answer in spoken] == [list, dict, list, dict, list]
    assert [tasks[0]["tags"] for tasks in lists] == [["a"], ["a"], "a", "a", ["a"]]


PAGE = (ROOT / "docs" / "dialects.md").read_text()
CURLS = re.findall(r"^# (\S+=.*)\n(curl .*?)  +# (.+)$", PAGE, flags=re.MULTILINE)


def test_the_page_has_every_option() -> None:
    table = PAGE.partition("## All options")[2].partition("## See")[0]
    assert set(re.findall(r"^\| `(\w+)=", table, flags=re.MULTILINE)) == set(OPTIONS)
    assert {option.partition("=")[0] for option, _, _ in CURLS} == set(OPTIONS)
    for option in re.findall(r"`(\w+=[^`]+)`", PAGE.partition("## All options")[0]):
        assert parse(option) != Dialect()
    for line in re.findall(r'API_DIALECT="(.+)"', PAGE):
        assert line in CONVERSATIONS or parse(line) != Dialect()


@pytest.mark.parametrize(("option", "command", "answer"), CURLS, ids=[option for option, _, _ in CURLS])
def test_the_page_says_what_is_answered(user: Any, option: str, command: str, answer: str) -> None:
    alice = user(option)
    id = alice.post("/api/tasks", json={"title": "Buy tea"}).headers["Location"].rpartition("/")[2]
    known = {"$auth": "", "$json": "", "$API": "/api", "$ID": id, "$TOKEN": alice.token}
    for name, value in known.items():
        command = command.replace(name, value)
    asked = ArgumentParser()
    for flag in ("-H", "-X", "-d", "-b"):
        asked.add_argument(flag)
    asked.add_argument("address")
    said = asked.parse_args(shlex.split(command)[1:])
    sent = {"data": said.d, "content_type": "application/json"} if said.d else {}
    if said.b:
        alice.client.set_cookie(*said.b.split("="), domain="localhost")
        found = alice.client.get(said.address)
    else:
        found = alice.request(said.X or ("POST" if said.d else "GET"), said.address, **sent)
    assert answer.replace(": ", ":") in re.sub(r"(\d)\.0\b", r"\1", found.text)


@pytest.mark.parametrize("text", ["list=", "names=nothing:order", "paths=/api/docs"])
def test_the_server_does_not_start_with_a_bad_option(database_url: str, text: str) -> None:
    given = {
        "PATH": os.environ["PATH"],
        "BETTER_AUTH_SECRET": SECRET,
        "DATABASE_URL": database_url,
        "API_DIALECT": text,
    }
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    option = text.partition("=")[0]
    assert re.fullmatch(rf"The settings have problems:\n  API_DIALECT: {option}: .*\.\n", done.stderr)

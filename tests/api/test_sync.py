"""Delta sync: a client that follows the feed ends with what the server has, whatever happens meanwhile."""

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask

from tests.cli.test_cli import invoke
from tests.conftest import User, again, assert_problem, settings_for, user_of
from tests.support.wire import Wire
from todo_service import create_app
from todo_service.tasks.feed import LAST_ID, Token, encode

Task = dict[str, Any]


class Client:
    """Somebody's device: what it knows of the tasks, and where it stands in the feed."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.tasks: dict[str, Task] = {}
        self.next: str | None = None

    def pull(self, limit: int = 1000) -> Any:
        """Take one page of the feed."""
        since = f"&since={self.next}" if self.next else ""
        response = self.user.get(f"/api/tasks/changes?limit={limit}{since}")
        assert response.status_code == 200, response.text
        page = response.json
        for change in page["changes"]:
            assert change["purged"] is (change["task"] is None)
            if change["purged"]:
                self.tasks.pop(change["id"], None)
            else:
                assert (change["id"], change["version"]) == (change["task"]["id"], change["task"]["version"])
                self.tasks[change["id"]] = change["task"]
        self.next = page["next"]
        return page

    def sync(self, limit: int = 1000) -> list[Any]:
        """Take all that there is; the pages."""
        pages = [self.pull(limit)]
        while pages[-1]["has_more"]:
            pages.append(self.pull(limit))
        return pages


def of_server(user: User) -> dict[str, Task]:
    """All of a user's tasks, those in the trash included."""
    return {task["id"]: task for query in ("", "?deleted=true") for task in user.get(f"/api/tasks{query}").json}


def changes(pages: list[Any]) -> list[Any]:
    return [change for page in pages for change in page["changes"]]


def test_nothing_yet(alice: User) -> None:
    client = Client(alice)
    assert changes(client.sync()) == []
    task = alice.create()
    assert changes(client.sync()) == [{"id": task["id"], "version": 1, "purged": False, "task": task}]
    assert changes(client.sync()) == []


def test_without_a_token_there_is_everything(alice: User, bob: User) -> None:
    bob.create("Bob's")
    kept, done, trashed, gone = (alice.create(name) for name in ("kept", "done", "trashed", "gone"))
    alice.patch(f"/api/tasks/{done['id']}/complete")
    alice.delete(f"/api/tasks/{trashed['id']}")
    alice.delete(f"/api/tasks/{gone['id']}?permanent=true")
    client = Client(alice)
    page = client.pull()
    assert page["has_more"] is False
    assert [change["id"] for change in page["changes"]] == [kept["id"], done["id"], trashed["id"], gone["id"]]
    assert client.tasks == of_server(alice)
    assert client.tasks[trashed["id"]]["deleted_at"]
    assert "Bob's" not in str(page)


EVENTS: dict[str, Callable[[User, str], Any]] = {
    "change": lambda user, path: user.patch(path, json={"title": "changed"}),
    "complete": lambda user, path: user.patch(f"{path}/complete"),
    "trash": lambda user, path: user.delete(path),
    "sweep": lambda user, _path: user.delete("/api/tasks?status=all"),
    "restore": lambda user, path: user.post(f"{path}/restore") if user.delete(path) else None,
    "purge": lambda user, path: user.delete(f"{path}?permanent=true"),
    "purge from the trash": lambda user, path: user.delete(f"{path}?permanent=true") if user.delete(path) else None,
    "batch": lambda user, path: user.post(
        "/api/tasks/batch", json={"operations": [{"op": "complete", "id": path.rpartition("/")[2]}]}
    ),
}


@pytest.mark.parametrize("event", EVENTS)
def test_each_kind_of_change_comes_once(alice: User, event: str) -> None:
    alice.create("another")
    id = alice.create("this")["id"]
    client = Client(alice)
    client.sync()
    alice_before = client.next
    assert EVENTS[event](alice, f"/api/tasks/{id}").status_code == 200
    seen = [change for change in changes(client.sync()) if change["id"] == id]
    assert [change["purged"] for change in seen] == ["purge" in event]
    assert client.tasks == of_server(alice)
    assert changes(client.sync()) == []
    # The same token again gives the same again.
    client.next = alice_before
    assert [change for change in changes(client.sync()) if change["id"] == id] == seen


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_pages(alice: User, limit: int) -> None:
    """In the order of the versions, some of which several tasks have in common."""
    ids = [alice.create(f"{n}")["id"] for n in range(7)]
    for id in ids[:2]:
        alice.delete(f"/api/tasks/{id}?permanent=true")
    alice.delete("/api/tasks?status=all")
    alice.create("new")
    client = Client(alice)
    pages = client.sync(limit)
    assert len(changes(pages)) == 8
    assert [len(page["changes"]) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert 0 < len(pages[-1]["changes"]) <= limit
    places = [(change["version"], change["id"]) for change in changes(pages)]
    assert places == sorted(set(places))
    assert len({version for version, _ in places}) == 4
    assert client.tasks == of_server(alice)


def test_changes_between_two_pages_are_not_lost(alice: User) -> None:
    ids = [alice.create(f"{n}")["id"] for n in range(6)]
    client = Client(alice)
    client.pull(limit=2)
    alice.patch(f"/api/tasks/{ids[0]}", json={"title": "sent already"})
    alice.delete(f"/api/tasks/{ids[1]}?permanent=true")
    alice.delete(f"/api/tasks/{ids[5]}?permanent=true")
    alice.create("new")
    client.sync(limit=2)
    assert client.tasks == of_server(alice)


def create(user: User, _path: str, title: str) -> Any:
    return user.post("/api/tasks", json={"title": title})


def create_some(user: User, _path: str, title: str) -> Any:
    operations = [{"op": "create", "task": {"title": title}}] * 3
    return user.post("/api/tasks/batch", json={"operations": operations})


# What writers do, and how often.
WRITES: dict[Callable[[User, str, str], Any], int] = {
    create: 5,
    create_some: 2,
    lambda user, path, title: user.patch(path, json={"title": title}): 6,
    lambda user, path, _: user.patch(f"{path}/complete"): 3,
    lambda user, path, _: user.delete(path): 4,
    lambda user, path, _: user.post(f"{path}/restore"): 3,
    lambda user, path, _: user.delete(f"{path}?permanent=true"): 2,
    lambda user, _, __: user.delete("/api/tasks?status=completed"): 1,
}


@pytest.mark.parametrize("seed", range(6))
def test_a_client_that_follows_ends_with_the_servers_state(app: Flask, seed: int) -> None:
    """Eight writers at once on the same tasks, and a reader that asks on and on while they are at it."""
    user = user_of(app, "busy")
    ids = [user.create(f"{n}")["id"] for n in range(5)]
    unexpected: list[str] = []

    def write(number: int) -> None:
        draw = random.Random(seed * 100 + number)
        me = again(user)
        for step in range(25):
            [work] = draw.choices(list(WRITES), list(WRITES.values()))
            response = work(me, f"/api/tasks/{draw.choice(ids)}", f"{number}.{step}")
            if response.status_code not in (200, 201, 404):
                unexpected.append(response.text)
            elif work is create:
                ids.append(response.json["id"])
            elif work is create_some:
                ids.extend(result["task"]["id"] for result in response.json["results"])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    client, draw, busy_rounds = Client(user), random.Random(seed), 0
    while any(thread.is_alive() for thread in threads):
        busy_rounds += bool(client.pull(limit=draw.randint(1, 9))["changes"])
    for thread in threads:
        thread.join()
    client.sync()
    assert unexpected == []
    assert busy_rounds > 10
    assert len(client.tasks) > 10
    assert client.tasks == of_server(user)


def token_of(user: User) -> str:
    token: str = user.get("/api/tasks/changes").json["next"]
    return token


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: "",
        lambda token: "x",
        lambda token: "%00",
        lambda token: "%C3%A9.1",
        lambda token: ".",
        lambda token: "1",
        lambda token: token[:-1],
        lambda token: token[1:],
        lambda token: f"{token}0",
        lambda token: f"{token}.1",
        lambda token: token.replace(".", ""),
        lambda token: token.rpartition(".")[0],
        lambda token: f"{token.rpartition('.')[0]}.{'0' * 12}",
        lambda token: f"{token.partition('.')[0]}.-1",
        lambda token: f"{token.partition('.')[0]}.%D9%A1",
        lambda token: f"{token.partition('.')[0]}.{'9' * 30}",
        lambda token: f"{token}&since={token}",
    ],
)
def test_a_broken_token_is_refused_by_name(alice: User, spoil: Callable[[str], str]) -> None:
    """OWASP ASVS 5.0 V2.2.1."""
    alice.create()
    problem = assert_problem(alice.get(f"/api/tasks/changes?since={spoil(token_of(alice))}"), 422, "invalid")
    assert problem["errors"][0]["field"] == "since"


def test_tokens_are_opaque_and_a_users_own(alice: User, bob: User) -> None:
    """OWASP API1:2023."""
    for user in (alice, bob):
        user.create()
    token = token_of(alice)
    assert alice.id not in token
    assert assert_problem(bob.get(f"/api/tasks/changes?since={token}"), 422)["errors"][0]["field"] == "since"
    for n in range(2):
        alice.create(f"{n}")
    link = alice.get("/api/tasks?limit=1").headers["Link"]
    cursor = link.partition("cursor=")[2].partition(">")[0]
    assert_problem(alice.get(f"/api/tasks/changes?since={cursor}"), 422)
    assert_problem(alice.get(f"/api/tasks?cursor={token}"), 422)


@pytest.mark.parametrize("limit", ["0", "1001", "x", "", "1&limit=2"])
def test_bad_limit_is_refused_by_name(alice: User, limit: str) -> None:
    problem = assert_problem(alice.get(f"/api/tasks/changes?limit={limit}"), 422)
    assert problem["errors"][0]["field"] == "limit"


def test_both_families_have_one_feed(alice: User, bob: User) -> None:
    task = alice.create()
    feed = alice.get(f"/api/{alice.id}/tasks/changes/").json
    assert feed == alice.get("/api/tasks/changes").json
    assert [change["task"] for change in feed["changes"]] == [task]
    assert_problem(bob.get(f"/api/{alice.id}/tasks/changes"), 403)


def test_a_page_is_one_round_trip(database_url: str) -> None:
    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        for n in range(5):
            user.create(f"{n}")
        wire.reset()
        client = Client(user)
        assert len(client.sync(limit=2)) == len(wire.queries) == 3


@pytest.mark.parametrize("command", ["forget", "renew"])
@pytest.mark.parametrize("limit", [1, 1000])
def test_a_token_of_another_life_is_gone(app: Flask, alice: User, command: str, limit: int) -> None:
    """The numbers in it may be right again, and what it stands for another thing."""
    for n in range(2):
        alice.create(f"first life {n}")
    old = Client(alice)
    old.pull(limit)
    invoke(app, *([command, "--yes", alice.id] if command == "forget" else [command]))
    assert_problem(alice.get(f"/api/tasks/changes?since={old.next}"), 410, "gone")
    for n in range(3):
        alice.create(f"second life {n}")
    assert_problem(alice.get(f"/api/tasks/changes?since={old.next}"), 410, "gone")
    new = Client(alice)
    new.sync(limit)
    assert new.tasks == of_server(alice)
    assert changes(new.sync()) == []


def test_who_had_nothing_goes_on_in_any_life(app: Flask, alice: User) -> None:
    client = Client(alice)
    client.sync()
    alice.create("first life")
    invoke(app, "forget", "--yes", alice.id)
    alice.create("second life")
    alice.create("second life")
    client.sync(limit=1)
    assert client.tasks == of_server(alice)
    assert len(client.tasks) == 2


def test_a_token_of_an_earlier_release_is_gone(alice: User) -> None:
    """It names no life."""
    alice.create()
    old = encode(alice.id, Token(1, 1, LAST_ID))
    assert_problem(alice.get(f"/api/tasks/changes?since={old}"), 410, "gone")

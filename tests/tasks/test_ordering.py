"""The manual order: tasks moved between others, no two at one place, and no position that would not be taken back."""

import json
import math
import random
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from tests.api.test_lists import pages
from tests.api.test_sync import Client, changes, of_server
from tests.api.test_transfer import export, imported
from tests.conftest import ELSEWHERE, User, again, assert_problem, assert_tagged, run_sql, settings_for, user_of
from tests.http.test_conditions import at_once
from tests.support.wire import Wire
from tests.tasks.test_recurring import toggled
from todo_service import create_app
from todo_service.db.models import MAX_BATCH, MAX_POSITION

Task = dict[str, Any]


def move(user: User, task: Task | str, **options: Any) -> Any:
    """`move(alice, task, after=other)`."""
    headers = options.pop("headers", {})
    body = {side: other["id"] if isinstance(other, dict) else other for side, other in options.items()}
    id = task if isinstance(task, str) else task["id"]
    return user.post(f"/api/tasks/{id}/move", json=body, headers=headers)


def moved(user: User, task: Task, **options: Any) -> Task:
    response = move(user, task, **options)
    assert response.status_code == 200, response.text
    answer: Task = response.json
    return answer


def order(user: User) -> list[str]:
    """The titles in the manual order, in which no two tasks have one place."""
    tasks = user.get("/api/tasks?sort=position").json
    positions = [task["position"] for task in tasks]
    assert len(set(positions)) == len(positions), positions
    assert all(abs(position) <= MAX_POSITION for position in positions), positions
    return [task["title"] for task in tasks]


def full(user: User, *titles: str, apart: float = 0.0) -> list[Task]:
    """Tasks with no room between them: `apart`, or the next numbers to one another."""
    positions = [1.0]
    while len(positions) < len(titles):
        positions.append(positions[-1] + apart if apart else math.nextafter(positions[-1], math.inf))
    return [user.create(title, position=position) for title, position in zip(titles, positions, strict=True)]


def path_of(task: Task) -> str:
    return f"/api/tasks/{task['id']}"


# --- Moving ---


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize(
    ("title", "side", "beside", "expected"),
    [
        ("a", "after", "b", "bacd"),
        ("a", "after", "c", "bcad"),
        ("a", "after", "d", "bcda"),
        ("a", "after", None, "bcda"),
        ("a", "before", "d", "bcad"),
        ("a", "before", None, "abcd"),
        ("a", "before", "b", "abcd"),
        ("d", "before", "a", "dabc"),
        ("d", "before", None, "dabc"),
        ("d", "before", "b", "adbc"),
        ("d", "after", "a", "adbc"),
        ("d", "after", "c", "abcd"),
        ("d", "after", None, "abcd"),
        ("b", "after", "b", "abcd"),
        ("b", "before", "b", "abcd"),
    ],
)
def test_a_task_goes_where_it_is_told(
    alice: User, room: bool, title: str, side: str, beside: str | None, expected: str
) -> None:
    tasks = dict(zip("abcd", [alice.create(name) for name in "abcd"] if room else full(alice, *"abcd"), strict=True))
    client = Client(alice)
    client.sync()
    task, before = tasks[title], alice.get("/api/tasks").headers["ETag"]
    for _ in range(2):
        answer = move(alice, task, **{side: tasks[beside] if beside else None})
        stamps = {name: answer.json[name] for name in ("position", "updated_at", "version")}
        assert answer.json == task | stamps
        assert "".join(order(alice)) == expected
    assert alice.get(path_of(task)).json == answer.json
    assert answer.headers["ETag"] == alice.get(path_of(task)).headers["ETag"]
    assert (alice.get("/api/tasks").headers["ETag"] == before) is (beside == title)
    client.sync()
    assert client.tasks == of_server(alice)


def test_a_lonely_task_can_be_moved(alice: User) -> None:
    task = alice.create("a")
    for side in ("after", "before"):
        assert moved(alice, task, **{side: None})["title"] == "a"
    assert order(alice) == ["a"]


@pytest.mark.parametrize("body", [{}, {"after": None, "before": None}, {"after": 1}, {"before": "x"}, {"after": []}])
def test_either_after_or_before(alice: User, body: Task) -> None:
    task = alice.create()
    assert_problem(alice.post(f"{path_of(task)}/move", json=body), 422, "invalid")
    assert alice.get("/api/tasks").json == [task]


@pytest.mark.parametrize("side", ["after", "before"])
def test_neighbours_that_are_not_there(alice: User, bob: User, side: str) -> None:
    task, foreign, trashed = alice.create(), bob.create(), alice.create()
    alice.delete(path_of(trashed))
    etag = alice.get("/api/tasks").headers["ETag"]
    for other, status in ((foreign, 403), (trashed, 404), (str(uuid4()), 404)):
        problem = assert_problem(move(alice, task, **{side: other}), status)
        assert [error["field"] for error in problem["errors"]] == [side]
        assert problem["detail"].startswith(f"{side}: ")
    assert_problem(move(alice, foreign, **{side: task}), 403)
    assert_problem(move(alice, trashed, **{side: task}), 404)
    assert_problem(move(alice, str(uuid4()), **{side: task}), 404)
    assert (alice.get("/api/tasks").json, alice.get("/api/tasks").headers["ETag"]) == ([task], etag)
    assert bob.get("/api/tasks").json == [foreign]


@pytest.mark.parametrize("room", [True, False])
def test_only_if_it_still_has_this_version(alice: User, room: bool) -> None:
    a, _, c = [alice.create(name) for name in "abc"] if room else full(alice, *"abc")
    assert_problem(move(alice, c, after=a, headers={"If-Match": '"99"'}), 412)
    assert order(alice) == ["a", "b", "c"]
    answer = move(alice, c, after=a, headers={"If-Match": f'"{c["version"]}"'})
    assert answer.status_code == 200
    assert_tagged(answer)
    answer = move(alice, c, after=a, headers={"If-Match": answer.headers["ETag"]})
    assert answer.status_code == 200
    # The tag of another life of the user, or of another database.
    assert_problem(move(alice, c, after=a, headers={"If-Match": f'"{answer.json["version"]}-5f0c93b1a2d4"'}), 412)
    assert_problem(move(alice, c, after=None, headers={"If-Match": f'"{c["version"]}"'}), 412)
    assert order(alice) == ["a", "c", "b"]


@pytest.mark.parametrize("room", [True, False])
def test_a_move_with_a_key_is_done_once(alice: User, room: bool) -> None:
    a, b, c = [alice.create(name) for name in "abc"] if room else full(alice, *"abc")
    key = {"Idempotency-Key": "once"}
    first = move(alice, c, after=a, headers=key)
    moved(alice, c, after=b)
    again = alice.post(f"/api/{alice.id}/tasks/{c['id']}/move", json={"after": a["id"]}, headers=key)
    assert (again.json, again.headers["Idempotency-Replayed"]) == (first.json, "true")
    assert order(alice) == ["a", "b", "c"]


# --- No two at one place ---


SETTERS: dict[str, Any] = {
    "create": lambda user, position: user.post("/api/tasks", json={"title": "new", "position": position}),
    "PATCH": lambda user, position: user.patch(path_of(user.create("new")), json={"position": position}),
    "PUT all of it": lambda user, position: user.put(
        path_of(task := user.create("new")), json=task | {"position": position, "completed": True}
    ),
    "batch create": lambda user, position: user.post(
        "/api/tasks/batch", json={"operations": [{"op": "create", "task": {"title": "new", "position": position}}]}
    ),
    "restore": lambda user, position: restored(user, position),
}


def restored(user: User, position: float) -> Any:
    tasks = {task["position"]: task for task in user.get("/api/tasks").json}
    task = tasks[position]
    user.delete(path_of(task))
    user.create(task["title"], position=position)
    user.patch(path_of(task), json={"title": "new"})
    answer = user.post(f"{path_of(task)}/restore")
    return user.patch(path_of(task), json={"title": "new"}) if answer.status_code == 200 else answer


@pytest.mark.parametrize("way", SETTERS)
@pytest.mark.parametrize("apart", [1, 0])
def test_a_position_that_another_task_has_is_the_place_next_to_it(alice: User, way: str, apart: float) -> None:
    tasks = full(alice, *"abcd", apart=apart)
    position = tasks[1]["position"]
    answer = SETTERS[way](alice, position)
    assert answer.status_code in (200, 201), answer.text
    assert order(alice) == ["a", "b", "new", "c", "d"]
    task = answer.json["results"][0]["task"] if "results" in answer.json else answer.json
    assert alice.get(path_of(task)).json == task
    if apart:
        unmoved = [task["position"] for task in alice.get("/api/tasks?sort=position").json if task["title"] != "new"]
        assert unmoved == [task["position"] for task in tasks]


def test_an_unchanged_position_is_left_alone(alice: User) -> None:
    """Two out of a file at one place: a client that sends whole tasks back moves neither."""
    imported(alice, json.dumps([{"title": title, "position": 5} for title in "ab"]))
    for task in alice.get("/api/tasks?sort=position").json:
        assert alice.put(path_of(task), json=task | {"description": "x"}).json["position"] == 5
    a, b = alice.get("/api/tasks?sort=position").json
    c = alice.create("c")
    moved(alice, c, after=a)
    assert order(alice) == [a["title"], "c", b["title"]]


def test_a_batch_can_swap_positions(alice: User) -> None:
    tasks = [alice.create(f"{n}") for n in range(20)]
    backwards = [{"op": "update", "id": task["id"], "task": {"position": 20 - n}} for n, task in enumerate(tasks)]
    results = alice.post("/api/tasks/batch", json={"operations": backwards}).json["results"]
    assert [result["task"]["position"] for result in results] == list(range(20, 0, -1))
    assert order(alice) == [f"{n}" for n in reversed(range(20))]
    same = [{"op": "create", "task": {"title": f"new {n}", "position": 3}} for n in range(5)]
    results = alice.post("/api/tasks/batch", json={"operations": same}).json["results"]
    assert order(alice)[2:9] == ["17", *(f"new {n}" for n in range(5)), "16"]
    stored = {task["id"]: task for task in alice.get("/api/tasks").json}
    assert all(stored[result["task"]["id"]] == result["task"] for result in results)


def test_creations_at_once_with_one_position(alice: User) -> None:
    at_once(16, lambda number: again(alice).create(f"{number}", position=0))
    assert sorted(order(alice), key=int) == [f"{number}" for number in range(16)]


# --- What the service makes, it takes ---


def test_behind_the_last_position_there_is_always_another(alice: User, bob: User) -> None:
    alice.create("a", position=1e12)
    for number in range(3):
        task = alice.create(f"{number}")
        assert alice.put(path_of(task), json=task).json["position"] == task["position"]
    top = alice.create("top", position=1e12)
    operations = [{"op": "create", "task": {"title": f"b{number}"}} for number in range(3)]
    assert alice.post("/api/tasks/batch", json={"operations": operations}).status_code == 200
    assert alice.patch(path_of(top), json={"position": None}).status_code == 200
    assert order(alice) == ["a", "0", "1", "2", "b0", "b1", "b2", "top"]
    daily = alice.create("daily", position=1e12, due_date="2090-01-01", recurrence="daily")
    toggled(alice, daily)
    assert order(alice)[-2:] == ["daily", "daily"]
    alice.create("up", position=1e12)
    imported(alice, json.dumps([{"title": "i0"}, {"title": "high", "position": 1e12}, {"title": "i1"}]))
    assert [title for title in order(alice) if title in ("high", "i0", "i1", "up")][-2:] == ["i0", "i1"]
    assert imported(bob, export(alice)) == (len(order(alice)), 0)
    assert order(bob) == order(alice)


def test_before_the_first_position_there_is_always_another(alice: User) -> None:
    alice.create("b", position=-1e12)
    alice.create("c", position=-1e12)
    a = alice.create("a")
    moved(alice, a, before=None)
    assert order(alice) == ["a", "b", "c"]


def test_what_was_in_the_trash_meanwhile_is_not_at_anothers_place(alice: User) -> None:
    top = alice.create("top", position=1e12)
    alice.delete(path_of(top))
    for number in range(3):
        alice.create(f"{number}")
    assert alice.post(f"{path_of(top)}/restore").json["position"] == 1e12
    alice.create("last")
    assert order(alice) == ["0", "1", "2", "top", "last"]


# --- No end of room ---


# What it shows of numbers is the same on every PostgreSQL.
MOVES = 500 if ELSEWHERE else 10_000


def test_ten_thousand_moves_between_the_same_two(alice: User, database_url: str) -> None:
    """Each right behind the first: the room between is halved again and again."""
    tasks = [alice.create(f"{number}") for number in range(40)]
    first, rest = tasks[0], tasks[1:]
    expected = [task["title"] for task in rest]
    for number in range(MOVES):
        task = rest[number % len(rest)]
        moved(alice, task, after=first)
        expected.remove(task["title"])
        expected.insert(0, task["title"])
        if number % 500 == 0:
            assert order(alice) == ["0", *expected]
    assert order(alice) == ["0", *expected]
    [(revision,)] = run_sql(database_url, "SELECT revision FROM owners WHERE user_id = %(id)s", {"id": alice.id})
    # Some of the tasks around it, once in twenty moves or more: a few changes for each.
    assert revision < 40 + MOVES * 3


def test_ten_thousand_tasks_between_the_same_two(alice: User) -> None:
    """Each of a hundred batches puts a hundred right behind the first task."""
    first, last = alice.create("first"), alice.create("last")
    expected: list[str] = []
    for number in range(100):
        new = [{"title": f"{number}.{n}", "position": first["position"]} for n in range(MAX_BATCH)]
        operations = [{"op": "create", "task": task} for task in new]
        assert alice.post("/api/tasks/batch", json={"operations": operations}).status_code == 200
        expected = [str(task["title"]) for task in new] + expected
        # It may have been moved for the others' sake.
        first = alice.get(path_of(first)).json
    tasks = [task for page in pages(alice, "/api/tasks?sort=position&limit=1000") for task in page]
    assert [task["title"] for task in tasks] == ["first", *expected, "last"]
    positions = [task["position"] for task in tasks]
    assert all(low < high for low, high in pairwise(positions))
    assert positions[-1] == last["position"] == 2


def test_halvings_by_the_client_never_tie(alice: User) -> None:
    """Clients that compute the middle themselves, as they had to before there was a move."""
    for title in "abc":
        alice.create(title)
    for _ in range(300):
        low, high, task = alice.get("/api/tasks?sort=position").json
        middle = (low["position"] + high["position"]) / 2
        alice.patch(path_of(task), json={"position": middle})
        # Where the two are next to each other, the middle is one of them.
        assert order(alice)[2 if middle == high["position"] else 1] == task["title"]


def test_random_moves_follow_a_list(alice: User) -> None:
    draw, model = random.Random(8), [f"{number}" for number in range(12)]
    tasks = {title: alice.create(title, position=draw.choice([None, 1, 1, 2, 1e12, -1e12])) for title in model}
    model = order(alice)
    for _ in range(400):
        title, side = draw.choice(model), draw.choice(["after", "before"])
        beside = draw.choice([*model, None])
        moved(alice, tasks[title], **{side: tasks[beside] if beside else None})
        if title != beside:
            model.remove(title)
            end = len(model) if side == "after" else 0
            model.insert(end if beside is None else model.index(beside) + (side == "after"), title)
        if draw.random() < 0.1:
            task = alice.get(path_of(tasks[draw.choice(model)])).json
            alice.patch(path_of(tasks[title]), json={"position": task["position"]})
            if task["title"] != title:
                model.remove(title)
                model.insert(model.index(task["title"]) + 1, title)
        assert order(alice) == model


@pytest.mark.parametrize("room", [True, False])
def test_moves_at_once_end_in_one_order(alice: User, room: bool) -> None:
    titles = [f"{number}" for number in range(16)]
    tasks = [alice.create(title) for title in titles] if room else full(alice, *titles)
    client = Client(alice)
    client.sync()

    def work(number: int) -> None:
        user, draw = again(alice), random.Random(number)
        for _ in range(25):
            beside = draw.choice([other for other in tasks if other != tasks[number]])
            moved(user, tasks[number], **{draw.choice(["after", "before"]): draw.choice([beside, tasks[0], None])})

    at_once(16, work)
    assert sorted(order(alice), key=int) == titles
    client.sync()
    assert client.tasks == of_server(alice)
    assert len({task["version"] for task in of_server(alice).values()}) == 16


def test_few_are_touched_and_each_gets_a_version(alice: User) -> None:
    many = json.dumps([{"title": f"{number}", "position": number} for number in range(900)])
    imported(alice, many)
    a, b = full(alice, "a", "b")[0], alice.create("c")
    tied = {task["title"]: task for task in alice.get("/api/tasks?sort=position&limit=10").json}
    client = Client(alice)
    client.sync()
    answer = moved(alice, b, after=tied["1"])
    touched = changes(client.sync())
    assert client.tasks == of_server(alice)
    assert len(touched) <= 8
    assert answer["version"] in {change["version"] for change in touched}
    assert len({change["version"] for change in touched}) == len(touched)
    stamps = {change["id"]: change["task"]["updated_at"] for change in touched}
    assert stamps.pop(b["id"]) == answer["updated_at"]
    assert all(stamp < answer["updated_at"] for stamp in stamps.values())
    assert a["title"] in order_of(alice)


def order_of(user: User) -> list[str]:
    return [task["title"] for task in user.get("/api/tasks?sort=position").json]


@pytest.mark.parametrize(
    ("name", "trips"),
    [
        ("move", 1),
        ("move, If-Match", 1),
        ("move to the end", 1),
        ("move to the start", 1),
        ("set", 3),
        ("create with a position", 3),
        ("no room", 6),
        ("position taken", 4),
    ],
)
def test_round_trips(wire: Wire, name: str, trips: int) -> None:
    carol = user_of(create_app(settings_for(wire.dsn())), "carol")
    a, _, c = full(carol, *"abc") if name == "no room" else [carol.create(title) for title in "abc"]
    requests = {
        "move, If-Match": lambda: move(carol, c, after=a, headers={"If-Match": f'"{c["version"]}"'}),
        "move to the end": lambda: move(carol, a, after=None),
        "move to the start": lambda: move(carol, c, before=None),
        "set": lambda: carol.patch(path_of(c), json={"position": 1.5}),
        "create with a position": lambda: carol.post("/api/tasks", json={"title": "x", "position": 1.5}),
        "position taken": lambda: carol.patch(path_of(c), json={"position": 1}),
    }
    wire.reset()
    response = requests.get(name, lambda: move(carol, c, after=a))()
    assert response.status_code in (200, 201)
    assert len(wire.queries) == trips, wire.queries

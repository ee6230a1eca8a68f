"""What existing frontends send, as they send it, to the service as it is shipped.

Each script repeats a habit seen among 33 public Next.js frontends of this kind of backend, with the number of those
that have it, where it was counted. Whatever comes back is read as they read it: `response.json()` on every answer, an
error's `detail` as a sentence, no redirect followed.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any, NamedTuple

import pytest

from tests.conftest import SECRET, token
from tests.support.live import Service

NOTHING = object()


class Step(NamedTuple):
    """One call. `{user}` and `{id}`, that of the task created last, are filled into the path.

    `body` is sent as it is, or is a function of the answer before; NOTHING sends none. `expected`: a dict is part of
    the object in the answer, a list has the titles of the tasks in it, a text occurs in the error's `detail`.
    """

    method: str
    path: str
    body: Any = NOTHING
    status: int = 200
    expected: Any = None


class Script(NamedTuple):
    """`clients`: how many of the 33 do this; None where it was seen, but not counted."""

    habit: str
    clients: int | None
    steps: tuple[Step, ...]


def life(path: str, slash: str = "") -> tuple[Step, ...]:
    """All that most frontends ever do."""
    many, one = f"{path}{slash}", f"{path}/{{id}}{slash}"
    return (
        Step("GET", many, expected=[]),
        Step("POST", many, {"title": "Buy milk", "description": "Two"}, 201, {"title": "Buy milk", "completed": False}),
        Step("GET", many, expected=["Buy milk"]),
        Step("GET", one, expected={"title": "Buy milk", "description": "Two"}),
        Step("PUT", one, {"title": "Buy oat milk"}, 200, {"title": "Buy oat milk", "description": "Two"}),
        Step("PATCH", f"{path}/{{id}}/complete{slash}", NOTHING, 200, {"completed": True}),
        Step("DELETE", one, expected={"title": "Buy oat milk", "completed": True}),
        Step("GET", many, expected=[]),
        Step("GET", one, status=404, expected="trash"),
    )


def new(**fields: Any) -> Step:
    return Step("POST", "/api/tasks", {"title": "Paint"} | fields, 201, {"title": "Paint"} | fields)


def change(body: Any, method: str = "PUT", /, **expected: Any) -> Step:
    return Step(method, "/api/tasks/{id}", body, 200, expected)


def complete(body: Any, expected: bool) -> Step:
    return Step("PATCH", "/api/tasks/{id}/complete", body, 200, {"completed": expected})


def listed(query: str, *titles: str) -> Step:
    return Step("GET", f"/api/tasks?{query}", expected=list(titles))


def refused(body: Any, detail: str) -> Step:
    return Step("POST", "/api/tasks", body, 422, detail)


# Three tasks whose orders by title, due date, priority and creation all differ.
THREE = (
    Step("POST", "/api/tasks", {"title": "Bread", "priority": "low", "due_date": "2026-12-03", "tags": ["shop"]}, 201),
    Step("POST", "/api/tasks", {"title": "Apples", "priority": "high", "tags": ["shop", "fruit"]}, 201),
    Step("POST", "/api/tasks", {"title": "Cups", "description": "for tea", "due_date": "2026-12-01"}, 201),
    complete({}, True),
)
NEWEST = ("Cups", "Apples", "Bread")
WHOLE = {"description": "the door", "priority": "high", "due_date": "2026-12-31", "tags": ["home"]}

SCRIPTS = (
    # Where
    Script("/api/tasks", 14, life("/api/tasks")),
    Script("/api/{user_id}/tasks", 13, life("/api/{user}/tasks")),
    Script("a slash at the end", 2, life("/api/tasks", "/")),
    Script("a slash at the end, with the user", 2, life("/api/{user}/tasks", "/")),
    Script(
        "the path of another user",
        13,
        (
            Step("GET", "/api/somebody-else/tasks", status=403, expected="user"),
            Step("POST", "/api/somebody-else/tasks", {"title": "x"}, 403, "user"),
            Step("GET", "/api/tasks", expected=[]),
        ),
    ),
    Script(
        "an address that there isn't",
        8,
        (
            new(),
            Step("PATCH", "/api/tasks/{id}/toggle", {}, 404, "/api/docs"),
            Step("PATCH", "/api/tasks/{id}/status", {"status": "done"}, 404, "/api/docs"),
            Step("POST", "/api/tasks/{id}/complete", {}, 405, "Allow"),
            Step("GET", "/api/tasks/{id}", expected={"completed": False}),
        ),
    ),
    # Completion
    Script("PATCH /complete without a body", 15, (new(), complete(NOTHING, True), complete(NOTHING, False))),
    Script("PATCH /complete with {}", 15, (new(), complete({}, True), complete({}, False))),
    Script(
        "PATCH /complete with {completed}",
        4,
        (
            new(),
            *(complete({"completed": True}, True) for _ in range(2)),
            *(complete({"completed": False}, False) for _ in range(2)),
        ),
    ),
    Script(
        "completion through PUT or PATCH",
        6,
        (
            new(),
            change({"completed": True}, completed=True, title="Paint"),
            change({"completed": False}, "PATCH", completed=False, completed_at=None),
        ),
    ),
    # Updates
    Script(
        "PUT with what has changed",
        27,
        (
            new(**WHOLE),
            change({"title": "Paint it"}, **WHOLE | {"title": "Paint it"}),
            change({"priority": "low"}, **WHOLE | {"title": "Paint it", "priority": "low"}),
            change({"title": "Paint", "description": "the window"}, due_date="2026-12-31", tags=["home"]),
        ),
    ),
    Script("PATCH with what has changed", 4, (new(**WHOLE), change({"tags": []}, "PATCH", **WHOLE | {"tags": []}))),
    Script("PUT with nothing", None, (new(**WHOLE), change({}, version=1, **WHOLE))),
    Script(
        "the whole task back",
        None,
        (
            new(**WHOLE),
            change(lambda task: task | {"title": "Paint it"}, **WHOLE | {"title": "Paint it"}),
            change(lambda task: task | {"completed": True, "user_id": "x", "id": "x"}, completed=True, **WHOLE),
            change(lambda task: {name: task[name] for name in ("id", "user_id", "created_at", "title")}, **WHOLE),
        ),
    ),
    # Fields
    Script("only a title", None, (new(), Step("GET", "/api/tasks", expected=["Paint"]))),
    Script(
        "fields of the form that are nobody's",
        None,
        (
            Step("POST", "/api/tasks", {"title": "Paint", "reminder": "none", "is_completed": True}, 201),
            change({"reminder": "1h", "color": None}, title="Paint", completed=False),
            listed("reminder=1h", "Paint"),
        ),
    ),
    Script(
        "a category, or none chosen",
        3,
        (
            new(category="home"),
            change({"category": "work", "color": None}, title="Paint", category="work"),
            listed("category=work", "Paint"),
            listed("category=home"),
            change({"category": ""}, title="Paint", category=None),
        ),
    ),
    Script(
        "empty fields of the form",
        None,
        (
            new(description="", due_date=None, tags=[]),
            change({"title": "Paint", "description": "", "due_date": None}, description="", due_date=None),
        ),
    ),
    Script("priorities in lower case", 14, tuple(new(priority=priority) for priority in ("low", "medium", "high"))),
    Script(
        "priorities in upper case",
        2,
        (
            Step("POST", "/api/tasks", {"title": "x", "priority": "HIGH"}, 201, {"priority": "high"}),
            change({"priority": "MEDIUM"}, priority="medium"),
            listed("priority=MEDIUM", "x"),
            listed("priority=LOW"),
        ),
    ),
    Script("no priority", 16, (new(), change({"priority": None}, priority="medium"))),
    Script(
        "due dates from a date input and from toISOString()",
        12,
        (
            new(due_date="2026-12-31"),
            change({"due_date": "2026-12-31T18:30:00.000Z"}, due_date="2026-12-31T18:30:00Z"),
            change({"due_date": "2026-12-31T18:30:00.250Z"}, due_date="2026-12-31T18:30:00.250000Z"),
            change({"due_date": None}, due_date=None),
            refused({"title": "x", "due_date": "tomorrow"}, "due_date: "),
        ),
    ),
    Script("tags", 6, (new(tags=["home", "urgent"]), change({"tags": ["work"]}, tags=["work"]))),
    *(
        Script(
            f"recurrence {word}",
            4,
            (
                new(due_date="2026-12-31", recurrence=word),
                complete({"completed": True}, True),
                listed("status=pending", "Paint"),
                listed("status=completed", "Paint"),
                change({"recurrence": None}, recurrence=None),
            ),
        )
        for word in ("daily", "weekly", "monthly", "yearly")
    ),
    # Lists
    *(
        Script(f"?{query}", clients, (*THREE, listed(query, *titles)))
        for query, clients, titles in (
            ("status=all", 12, NEWEST),
            ("status=pending", 12, ("Apples", "Bread")),
            ("status=completed", 12, ("Cups",)),
            ("filter_status=all", 1, NEWEST),
            ("filter_status=completed", 1, ("Cups",)),
            ("completed=true", 1, ("Cups",)),
            ("completed=false", 1, ("Apples", "Bread")),
            ("search=TEA", 10, ("Cups",)),
            ("search=", 10, NEWEST),
            ("q=app", 2, ("Apples",)),
            ("priority=high", 10, ("Apples",)),
            ("tag=shop", 3, ("Apples", "Bread")),
            ("tag=shop&tag=fruit", 3, ("Apples",)),
            ("sort_by=created&order=asc", 7, ("Bread", "Apples", "Cups")),
            ("sort_by=due_date&sort_order=desc", 4, ("Bread", "Cups", "Apples")),
            ("sort_by=priority&order=asc", 5, ("Bread", "Cups", "Apples")),
            ("sort=title", 5, ("Apples", "Bread", "Cups")),
            ("sort=newest", 5, NEWEST),
            ("sort=oldest", None, ("Bread", "Apples", "Cups")),
            ("sort=created_at&order=asc", 5, ("Bread", "Apples", "Cups")),
            ("sortBy=dueDate&sortOrder=desc", 1, ("Bread", "Cups", "Apples")),
            ("limit=2&offset=1", 3, ("Apples", "Bread")),
            ("page=1&pageSize=1", 1, NEWEST),
            ("_=1764547200000", None, NEWEST),
        )
    ),
    Script(
        "no paging",
        29,
        (
            Step("POST", "/api/tasks/batch", {"operations": [{"op": "create", "task": {"title": "x"}}] * 100}),
            Step("POST", "/api/tasks/batch", {"operations": [{"op": "create", "task": {"title": "x"}}] * 50}),
            Step("GET", "/api/tasks", expected=["x"] * 150),
        ),
    ),
    Script(
        "stats",
        3,
        (*THREE, Step("GET", "/api/tasks/stats", expected={"total": 3, "completed": 1, "pending": 2})),
    ),
    # Answers
    Script(
        "response.json() after DELETE",
        5,
        (new(), Step("DELETE", "/api/tasks/{id}", expected={"title": "Paint"}), Step("GET", "/api/tasks", expected=[])),
    ),
    Script(
        "errors shown by their detail",
        24,
        (
            refused({"title": ""}, "title: "),
            refused({"description": "x"}, "title: "),
            refused({"title": "x" * 201}, "title: "),
            refused({"title": "x", "description": "x" * 2001}, "description: "),
            refused({"title": "x", "priority": "urgent"}, "priority: "),
            Step("GET", "/api/tasks/1", status=404, expected="no task"),
            Step("DELETE", "/api/tasks/0197c9a4-6d2f-7c3e-9b41-404404404404", status=404, expected="no task"),
            Step("GET", "/api/tasks", expected=[]),
        ),
    ),
)


class Client:
    """A frontend's own `fetch` with the token in it. `typed`: it says JSON on every request, with a body or without."""

    def __init__(self, service: Service, token: str | None, typed: bool = False) -> None:
        self.port = service.port
        self.headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self.json = {"Content-Type": "application/json"}
        self.headers |= self.json if typed else {}

    def fetch(self, method: str, path: str, body: Any = NOTHING) -> tuple[int, Any]:
        """Status, and what `response.json()` gives."""
        headers = self.headers | ({} if body is NOTHING else self.json)
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request(method, path, None if body is NOTHING else json.dumps(body), headers)
            response = connection.getresponse()
            return response.status, json.load(response)


@pytest.fixture(scope="module")
def service(database_url: str) -> Iterator[Service]:
    with Service(database_url, SECRET) as service:
        yield service


@pytest.mark.parametrize("typed", [False, True], ids=["", "always as JSON"])
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.clients or 'some'} of 33: {script.habit}")
def test_script(service: Service, script: Script, typed: bool) -> None:
    user = f"user-{secrets.token_hex(6)}"
    client = Client(service, token(user), typed)
    id, answer = "", None
    for number, step in enumerate(script.steps):
        body = step.body(answer) if callable(step.body) else step.body
        status, answer = client.fetch(step.method, step.path.format(user=user, id=id), body)
        assert status == step.status, (number, step, answer)
        if status == 201:
            id = answer["id"]
        assert seen(answer, step.expected) == step.expected, (number, step)


def seen(answer: Any, expected: Any) -> Any:
    """The part of the answer that a client looks at, in the form of what it expects."""
    match expected:
        case list():
            return [task["title"] for task in answer]
        case dict():
            return {name: answer[name] for name in expected}
        case str():
            # An object or a list here would be shown as [object Object].
            assert isinstance(answer["detail"], str)
            assert answer["detail"] == answer["message"]
            return expected if expected in answer["detail"] else answer["detail"]
        case _:
            return None


@pytest.mark.parametrize("claim", ["sub", "user_id", "id"])
@pytest.mark.parametrize("path", ["/api/tasks", "/api/{user}/tasks"])
def test_shared_secret_tokens(service: Service, claim: str, path: str) -> None:
    """28 of 33 have HS256 under the app's secret, mostly with the user in `sub`."""
    user = f"user-{secrets.token_hex(6)}"
    client = Client(service, token(**{claim: user}))
    status, task = client.fetch("POST", path.format(user=user), {"title": "x"})
    assert (status, task["user_id"]) == (201, user)
    assert client.fetch("GET", path.format(user=user)) == (200, [task])


@pytest.mark.parametrize(
    ("credential", "hint"),
    [
        # The session token as `session.token` and as the cookie has it.
        ("Ndx5B3kqbCzGtLw1HqRjF5hVZx7oY2aT", "authClient.token()"),
        ("Ndx5B3kqbCzGtLw1HqRjF5hVZx7oY2aT.4Jq%2FtZ0x3mYk1b8wqP0cUoYy2Q%3D", "authClient.token()"),
        ("undefined", "Unauthorized: "),
        ("null", "Unauthorized: "),
        (None, "Unauthorized: "),
    ],
)
def test_what_is_no_token(service: Service, credential: str | None, hint: str) -> None:
    """4 of 33 send the opaque session token; others have no token yet, and send what JavaScript makes of that."""
    status, problem = Client(service, credential).fetch("GET", "/api/tasks")
    assert status == 401
    assert problem["detail"].startswith("Unauthorized: ")
    assert hint in problem["detail"]

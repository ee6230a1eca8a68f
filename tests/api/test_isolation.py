"""Nobody gets at another user's tasks: every operation of the document, by everybody, and both walls on their own.

The matrix is made from the OpenAPI document: a new route fails here until CASES has a row for it. What no row says
otherwise comes from OWASP API1:2023 (objects of others), and OWASP ASVS 5.0 V8.2.2 and V8.4.1 (tenants).
"""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy import text
from werkzeug.test import TestResponse

from tests.api.test_lists import pages
from tests.conftest import SECRET, User, again, assert_problem, revision, run_sql, settings_for, token, user_of
from tests.http.test_conditions import at_once
from tests.support.servers import MissingProgram, pgbouncer_server, postgres_server
from tests.support.wire import Wire
from todo_service import cli, create_app
from todo_service.db import prepared
from todo_service.db.session import Session
from todo_service.tasks.listing import SORTS

ABSENT = "0197c9a4-6d2f-7c3e-9b41-404404404404"
# (method, path) -> body. An operation that names a task, `{id}`, is for the owner's, any other for the caller's own.
CASES: dict[tuple[str, str], dict[str, Any] | None] = {
    ("get", "/api/tasks"): None,
    ("post", "/api/tasks"): {"title": "x"},
    ("delete", "/api/tasks"): None,
    ("get", "/api/tasks/{id}"): None,
    ("put", "/api/tasks/{id}"): {"title": "x"},
    ("patch", "/api/tasks/{id}"): {"title": "x"},
    ("delete", "/api/tasks/{id}"): None,
    ("post", "/api/tasks/{id}/restore"): None,
    ("patch", "/api/tasks/{id}/checklist/{n}"): {"completed": True},
    ("post", "/api/tasks/{id}/move"): {"before": None},
    ("patch", "/api/tasks/{id}/complete"): {"completed": True},
    ("post", "/api/tasks/batch"): {"operations": [{"op": "update", "id": "{id}", "task": {"title": "x"}}]},
    ("get", "/api/tasks/changes"): None,
    ("get", "/api/tasks/stats"): None,
    ("get", "/api/tasks/export"): None,
    ("post", "/api/tasks/import"): {"tasks": [{"title": "x"}]},
}
NAMING = {case for case, body in CASES.items() if "{id}" in case[1] or "{id}" in str(body)}
QUERIES = {("delete", "/api/tasks"): "?status=all"}
CREATED = {("post", "/api/tasks")}
PUBLIC = {f"docs.{name}" for name in ("openapi", "page", "to_page", "start", "asset")}
PUBLIC |= {"health.live", "health.ready", "metrics.metrics"}


def operations(app: Flask) -> set[tuple[str, str]]:
    document: Any = app.test_client().get("/api/openapi.json").json
    return {(method, path) for path, item in document["paths"].items() for method in item if method != "parameters"}


def test_every_operation_has_its_row(app: Flask) -> None:
    assert operations(app) == set(CASES)


def ask(user: User, case: tuple[str, str], id: str, family: str = "/api/tasks") -> Any:
    method, path = case
    path = path.replace("/api/tasks", family).replace("{id}", id).replace("{n}", "0") + QUERIES.get(case, "")
    return user.request(method.upper(), path, json=json.loads(json.dumps(CASES[case]).replace("{id}", id)))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
class TestMatrix:
    """Owner 2xx, other 403, anonymous 401, absent 404; in both families of routes."""

    def test_owner(self, alice: User, case: tuple[str, str]) -> None:
        for family in ("/api/tasks", f"/api/{alice.id}/tasks"):
            task = alice.create(checklist=[{"title": "x"}])
            assert ask(alice, case, task["id"], family).status_code == (201 if case in CREATED else 200)

    def test_other(self, alice: User, bob: User, case: tuple[str, str]) -> None:
        task = alice.create()
        response = ask(bob, case, task["id"])
        if case in NAMING:
            assert_problem(response, 403, "forbidden")
        assert task["id"] not in response.text
        assert alice.get("/api/tasks").json == [task]
        assert revision(alice.get("/api/tasks")) == 1

    def test_other_in_the_owners_path(self, alice: User, bob: User, case: tuple[str, str]) -> None:
        task = alice.create()
        for family in (f"/api/{alice.id}/tasks", "/api/nobody-knows/tasks", f"/api/{bob.id.upper()}/tasks"):
            assert_problem(ask(bob, case, task["id"], family), 403, "forbidden")
        assert alice.get("/api/tasks").json == [task]

    def test_anonymous(self, alice: User, case: tuple[str, str]) -> None:
        task = alice.create()
        anonymous = User("nobody", alice.client, "")
        method, path = case
        for family in ("/api/tasks", f"/api/{alice.id}/tasks"):
            url = path.replace("/api/tasks", family).replace("{id}", task["id"]) + QUERIES.get(case, "")
            response = anonymous.client.open(url, method=method.upper(), json=CASES[case])
            assert_problem(response, 401, "unauthorized")
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert alice.get("/api/tasks").json == [task]

    def test_absent(self, alice: User, case: tuple[str, str]) -> None:
        if case not in NAMING:
            response = ask(alice, case, "")
            assert response.status_code == (201 if case in CREATED else 200)
            return
        assert_problem(ask(alice, case, ABSENT), 404, "not-found")


def test_access_is_declared(app: Flask) -> None:
    """A route outside the public list answers 401 without a token, whatever it is."""
    client = app.test_client()
    checked = 0
    for rule in app.url_map.iter_rules():
        if rule.endpoint in PUBLIC:
            continue
        url = rule.rule.replace("<user_id>", "alice").replace("<task:id>", ABSENT).replace("<n>", "0")
        for method in (rule.methods or set()) - {"OPTIONS", "HEAD"}:
            assert_problem(client.open(url, method=method), 401)
            checked += 1
    assert checked == 2 * len(CASES)


@pytest.mark.parametrize(
    "request_options",
    [
        pytest.param({"query_string": {"user_id": "{alice}"}}, id="OWASP ASVS 5.0 V15.3.7: query"),
        pytest.param({"query_string": {"userId": "{alice}", "sub": "{alice}"}}, id="OWASP ASVS 5.0 V15.3.7: synonyms"),
        pytest.param({"headers": {"X-User-Id": "{alice}"}}, id="OWASP ASVS 5.0 V4.1.3: user id"),
        pytest.param({"headers": {"X-Forwarded-User": "{alice}"}}, id="OWASP ASVS 5.0 V4.1.3: forwarded user"),
        pytest.param({"headers": {"X-Original-URL": "/api/{alice}/tasks"}}, id="OWASP ASVS 5.0 V4.1.3: original URL"),
        pytest.param({"headers": {"X-HTTP-Method-Override": "DELETE"}}, id="OWASP ASVS 5.0 V4.1.4: override"),
        pytest.param({"query_string": {"_method": "DELETE"}}, id="OWASP ASVS 5.0 V4.1.4: method in the query"),
        pytest.param({"headers": {"Cookie": "better-auth.session_token={alice}"}}, id="OWASP ASVS 5.0 V8.3.1: cookie"),
    ],
)
def test_nothing_but_the_token_names_the_user(
    alice: User, bob: User, request_options: dict[str, dict[str, str]]
) -> None:
    task = alice.create("Alice's")
    options = {
        kind: {name: value.format(alice=alice.id) for name, value in values.items()}
        for kind, values in request_options.items()
    }
    assert bob.get("/api/tasks", **options).json == []
    assert_problem(bob.get(f"/api/tasks/{task['id']}", **options), 403)
    assert bob.post("/api/tasks", json={"title": "x", "user_id": alice.id}, **options).json["user_id"] == bob.id
    assert alice.get("/api/tasks").json == [task]


OPERATIONS: list[dict[str, Any]] = [
    {"op": "update", "task": {"title": "stolen"}},
    {"op": "update", "task": {}},
    {"op": "complete"},
    {"op": "delete"},
    {"op": "delete", "permanent": True},
    {"op": "update", "task": {"title": "stolen"}, "version": 1},
]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_a_batch_with_one_foreign_task_does_nothing(
    alice: User, bob: User, operation: dict[str, Any], place: int
) -> None:
    theirs, own = alice.create("Alice's"), bob.create("Bob's")
    operations: list[dict[str, Any]] = [
        {"op": "update", "id": own["id"], "task": {"title": "changed"}},
        {"op": "create", "task": {"title": "new"}},
    ]
    operations.insert(place, operation | {"id": theirs["id"]})
    problem = assert_problem(bob.post("/api/tasks/batch", json={"operations": operations}), 403, "forbidden")
    assert problem["errors"][0]["field"] == f"operations.{place}"
    assert alice.get("/api/tasks").json == [theirs]
    assert bob.get("/api/tasks").json == [own]
    assert revision(bob.get("/api/tasks")) == 1


def test_counts_and_changes_are_the_users_own(alice: User, bob: User) -> None:
    task = alice.create("Alice's", tags=["hers"], completed=True)
    gone = alice.create("Gone")
    alice.delete(f"/api/tasks/{gone['id']}?permanent=true")
    token_of_alice = alice.get("/api/tasks/changes").json["next"]
    nothing = bob.get("/api/tasks/stats").json
    assert (nothing["total"], nothing["by_tag"], set(nothing["completed_per_day"].values())) == (0, {}, {0})
    assert bob.get("/api/tasks/changes").json["changes"] == []
    own = bob.create("Bob's")
    assert [change["id"] for change in bob.get("/api/tasks/changes").json["changes"]] == [own["id"]]
    assert_problem(bob.get("/api/tasks/changes", query_string={"since": token_of_alice}), 422, "invalid")
    assert [change["id"] for change in alice.get("/api/tasks/changes").json["changes"]] == [task["id"], gone["id"]]


@pytest.mark.parametrize(
    "query",
    [
        *(
            "",
            "limit=1000",
            "offset=0",
            "count=true",
            "status=all",
            "status=completed",
            "completed=true",
            "deleted=true",
        ),
        *("search=same", "q=s", "tag=same", "priority=high", "due_after=1970-01-01", "due_before=9999-12-31"),
        *("overdue=true&tz=Asia/Tokyo", "overdue=false", "tz=UTC"),
        *(f"sort={sort}&order={order}" for sort in SORTS for order in ("asc", "desc")),
    ],
)
def test_no_list_has_anything_of_others(alice: User, bob: User, query: str) -> None:
    """Two users with the same tasks: each of them is listed, and counted, for its owner alone."""
    for user in (alice, bob):
        same: Any = dict(description="same", tags=["same"], priority="high", due_date="2020-01-01")
        user.create("same", **same)
        user.create("same", completed=True, **same)
        user.delete(f"/api/tasks/{user.create('same', **same)['id']}")
    for user in (alice, bob):
        response = user.get(f"/api/tasks?{query}")
        found = response.json
        assert 1 <= len(found) <= 2
        assert {task["user_id"] for task in found} == {user.id}
        assert response.headers.get("X-Total-Count", "2") == "2"
        walked = [
            task["id"]
            for page in pages(user, f"/api/tasks?{query}&limit=1".replace("limit=1000&", ""))
            for task in page
        ]
        assert walked == [task["id"] for task in found]


def test_idempotency_keys_are_the_users_own(alice: User, bob: User) -> None:
    """The same key and body by another user is a request of its own, and gives nothing of the first one's answer."""
    key = {"Idempotency-Key": "the same"}
    hers, his = (user.post("/api/tasks", json={"title": "x"}, headers=key) for user in (alice, bob))
    assert "Idempotency-Replayed" not in his.headers
    assert (hers.json["user_id"], his.json["user_id"]) == (alice.id, bob.id)
    assert alice.post("/api/tasks", json={"title": "x"}, headers=key).json == hers.json


def test_the_same_id_for_two_users_is_two_tasks(alice: User, bob: User, database_url: str) -> None:
    task = alice.create("Alice's")
    copy = """INSERT INTO tasks (user_id, id, title, title_key, position, version)
              VALUES (%(bob)s, %(id)s, 'Bob''s', 'bob''s', 1, 1)"""
    run_sql(database_url, copy, {"bob": bob.id, "id": task["id"]})
    path = f"/api/tasks/{task['id']}"
    run_sql(database_url, "INSERT INTO owners (user_id, revision) VALUES (%(bob)s, 1)", {"bob": bob.id})
    assert bob.patch(path, json={"title": "Bob's still"}).json["title"] == "Bob's still"
    assert alice.get(path).json == task
    assert bob.delete(f"{path}?permanent=true").status_code == 200
    assert alice.get(path).json == task


# --- The two walls ---


def without_owner_filter(sql: str) -> str:
    """The first wall pulled down: no condition on the owner is left, only what row-level security adds."""
    scope, _, statement = sql.rpartition("SET LOCAL app.user_id")
    owner, _, statement = statement.partition(";")
    tables = ("tasks", "named", "other", "further", "there", "owners", "tombstones", "answers")
    for column in (f"{table}.user_id" for table in tables):
        statement = statement.replace(f"{column} ={owner.partition('=')[2]}", "true")
    return f"{scope}SET LOCAL app.user_id{owner};{statement}" if scope else sql


def test_the_second_wall_holds_alone(wire: Wire, alice: User) -> None:
    """Row-level security shows nothing foreign to queries without an owner filter, and changes nothing foreign."""
    app = create_app(settings_for(wire.dsn()))
    mallory = user_of(app, "mallory")
    key = {"Idempotency-Key": "the same"}
    theirs = alice.post("/api/tasks", json={"title": "Alice's", "completed": True}, headers=key).json
    purged = alice.create("Purged")["id"]
    alice.delete(f"/api/tasks/{purged}?permanent=true")
    own = mallory.create("Mallory's", completed=True)
    wire.rewrite = without_owner_filter
    wire.reset()
    assert mallory.titles() == ["Mallory's"]
    sent = without_owner_filter(wire.queries[-1])
    assert f"'{mallory.id}'" in wire.queries[-1].partition("app.user_id")[2].partition(";")[2]
    assert mallory.id not in sent.partition("app.user_id")[2].partition(";")[2]
    for method, suffix, body in (
        ("GET", "", None),
        ("PATCH", "", {"title": "stolen"}),
        ("PATCH", "/complete", None),
        ("DELETE", "", None),
        ("DELETE", "?permanent=true", None),
        ("POST", "/restore", None),
        ("POST", "/move", {"before": None}),
    ):
        response = mallory.request(method, f"/api/tasks/{theirs['id']}{suffix}", json=body)
        assert response.status_code in (403, 404), response.text
    assert mallory.post(f"/api/tasks/{own['id']}/move", json={"after": theirs["id"]}).status_code in (403, 404)
    # Not next to Alice's, which has this position.
    assert mallory.patch(f"/api/tasks/{own['id']}", json={"position": 1}).json["position"] == 1
    for operation in OPERATIONS:
        response = mallory.post("/api/tasks/batch", json={"operations": [operation | {"id": theirs["id"]}]})
        assert response.status_code in (403, 404), response.text
    assert [change["id"] for change in mallory.get("/api/tasks/changes").json["changes"]] == [own["id"]]
    assert mallory.get("/api/tasks/stats").json["total"] == 1
    for sent in wire.queries[-2:]:
        assert mallory.id not in without_owner_filter(sent).partition("app.user_id")[2].partition(";")[2]
    assert mallory.delete("/api/tasks?status=all").json == {"deleted": 1}
    assert mallory.titles("?deleted=true") == ["Mallory's"]
    again = mallory.post("/api/tasks", json={"title": "Alice's", "completed": True}, headers=key)
    assert "Idempotency-Replayed" not in again.headers
    assert again.json["user_id"] == mallory.id
    assert mallory.delete(f"/api/tasks/{again.json['id']}?permanent=true").status_code == 200
    assert mallory.post(f"/api/tasks/{own['id']}/restore").status_code == 200
    assert alice.get("/api/tasks").json == [theirs]


def test_the_second_wall_is_on_every_table(database_url: str) -> None:
    tables = run_sql(
        database_url,
        """SELECT relname, relrowsecurity, (SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid)
           FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
           AND relname <> 'alembic_version'""",
    )
    assert {name for name, *_ in tables} >= {"answers", "owners", "tasks", "tombstones"}
    assert all(enabled and policies == 1 for _, enabled, policies in tables)
    role = run_sql(
        database_url,
        """SELECT rolcanlogin, rolbypassrls, rolsuper, rolcreaterole, rolcreatedb
           FROM pg_roles WHERE rolname = 'todo_app'""",
    )
    assert role == [(False, False, False, False, False)]


def test_without_an_owner_there_are_no_rows(alice: User, database_url: str) -> None:
    alice.create()
    for scope in ("", "SET LOCAL app.user_id = '';"):
        sql = f"SET LOCAL ROLE todo_app; {scope} SELECT * FROM tasks UNION ALL SELECT * FROM tasks"
        assert run_sql(database_url, sql) == []


def test_a_failed_request_leaves_no_owner_behind(wire: Wire, alice: User) -> None:
    """The next statement on the same connection starts from nothing, after an error as after an answer."""
    app = create_app(settings_for(wire.dsn(), pool_size=1))
    mallory, carol = user_of(app, "mallory"), user_of(app, "carol")
    mallory.create("Mallory's")
    wire.rewrite = lambda sql: sql.replace("SELECT page.user_id", "SELECT 1/0, page.user_id")
    assert_problem(mallory.get("/api/tasks"), 500)
    wire.rewrite = None
    assert carol.titles() == []
    assert app.test_client().get("/health/ready").status_code == 200
    with Session(app.extensions["engine"], unscoped=True) as session:
        owner, role = session.execute(text("SELECT current_setting('app.user_id', true), current_user")).one()
    assert owner in (None, "")
    assert role != "todo_app"


@pytest.mark.parametrize("path", ["/api/tasks/batch", "/api/tasks"])
def test_after_a_500_the_same_thread_starts_anew(
    wire: Wire, alice: User, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the middle of a transaction: neither it nor its owner is there any more for who comes next."""
    app = create_app(settings_for(wire.dsn(), pool_size=1))
    logger = logging.getLogger("todo_service.requests")
    logger.addHandler(caplog.handler)
    mallory, carol = user_of(app, "mallory"), user_of(app, "carol")
    mallory.create("Mallory's")
    body = {"title": "x", "operations": [{"op": "create", "task": {"title": "x"}}]}
    wire.rewrite = lambda sql: sql.replace("INSERT INTO tasks", "INSERT INTO no_such_table")
    assert_problem(mallory.post(path, json=body, headers={"Idempotency-Key": "x"}), 500)
    wire.rewrite = None
    wire.reset()
    assert carol.titles() == []
    assert f"app.user_id = '{carol.id}'" in wire.queries[0]
    assert wire.queries[0].startswith("SET LOCAL ROLE")
    carol.create("Carol's")
    assert_problem(app.test_client().get("/api/tasks"), 401)
    logger.removeHandler(caplog.handler)
    users = [getattr(record, "user", ...) for record in caplog.records if record.name == logger.name]
    assert users == [mallory.id, mallory.id, carol.id, carol.id, None]
    assert mallory.titles() == ["Mallory's"]


@pytest.mark.parametrize(
    ("name", "trips"),
    [
        ("list", 1),
        ("list, unchanged", 1),
        ("get", 1),
        ("get, unchanged", 1),
        ("create", 1),
        ("create, own id", 1),
        ("update", 1),
        ("update, If-Match", 1),
        ("complete", 1),
        ("toggle", 1),
        ("trash", 1),
        ("restore", 3),
        ("sweep", 1),
        ("sweep, If-Match", 1),
        ("delete for good", 1),
        ("changes", 1),
        ("stats", 1),
        ("batch", 3),
        ("of another user", 2),
        ("absent", 2),
        ("stale", 2),
    ],
)
def test_round_trips(wire: Wire, alice: User, name: str, trips: int) -> None:
    app = create_app(settings_for(wire.dsn()))
    carol = user_of(app, "carol")
    task, foreign = carol.create(), alice.create()
    path = f"/api/tasks/{task['id']}"
    trashed = carol.create()["id"]
    carol.delete(f"/api/tasks/{trashed}")
    etag, task_etag = (carol.get(address).headers["ETag"] for address in ("/api/tasks", path))
    many = {"operations": [{"op": "create", "task": {"title": "x"}}, {"op": "complete", "id": task["id"]}]}
    requests: dict[str, Callable[[], TestResponse]] = {
        "list": lambda: carol.get("/api/tasks?limit=20"),
        "list, unchanged": lambda: carol.get("/api/tasks", headers={"If-None-Match": etag}),
        "get": lambda: carol.get(path),
        "get, unchanged": lambda: carol.get(path, headers={"If-None-Match": task_etag}),
        "create": lambda: carol.post("/api/tasks", json={"title": "x"}),
        "update": lambda: carol.patch(path, json={"title": "x"}),
        "update, If-Match": lambda: carol.patch(path, json={"title": "x"}, headers={"If-Match": '"1"'}),
        "complete": lambda: carol.patch(f"{path}/complete", json={"completed": True}),
        "toggle": lambda: carol.patch(f"{path}/complete"),
        "trash": lambda: carol.delete(path),
        "restore": lambda: carol.post(f"/api/tasks/{trashed}/restore"),
        "create, own id": lambda: carol.post("/api/tasks", json={"title": "x", "id": str(uuid4())}),
        "sweep": lambda: carol.delete("/api/tasks?status=all"),
        "sweep, If-Match": lambda: carol.delete("/api/tasks?status=all", headers={"If-Match": etag}),
        "delete for good": lambda: carol.delete(f"{path}?permanent=true"),
        "changes": lambda: carol.get("/api/tasks/changes"),
        "stats": lambda: carol.get("/api/tasks/stats"),
        "batch": lambda: carol.post("/api/tasks/batch", json=many),
        "of another user": lambda: carol.get(f"/api/tasks/{foreign['id']}"),
        "absent": lambda: carol.get("/api/tasks/0197c9a4-6d2f-7c3e-9b41-404404404404"),
        "stale": lambda: carol.patch(path, json={"title": "x"}, headers={"If-Match": '"99"'}),
    }
    wire.reset()
    response = requests[name]()
    assert response.status_code == {"of another user": 403, "absent": 404, "stale": 412}.get(
        name, 304 if "unchanged" in name else 201 if "create" in name else 200
    )
    assert len(wire.queries) == trips, wire.queries


def test_owners_stay_apart_under_threads_on_few_connections(database_url: str) -> None:
    """Eight threads share two connections; each sees its own tasks only, all the time."""
    app = create_app(settings_for(database_url, pool_size=2))
    wrong: list[str] = []

    def work(number: int) -> None:
        user = user_of(app, f"user{number}")
        for count in range(25):
            user.create(user.id)
            if user.titles() != [user.id] * (count + 1):
                wrong.append(user.id)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.fixture
def two_connections() -> Iterator[Wire]:
    """PgBouncer that has two connections to a PostgreSQL of its own for all of its clients, seen through a `Wire`."""
    try:
        with postgres_server() as server, pgbouncer_server(server.dsn, pool_size=2) as pool, Wire(pool.dsn) as wire:
            cli.upgrade(server.dsn)
            yield wire
    except MissingProgram as error:
        pytest.skip(str(error))


def test_the_second_wall_holds_for_threads_on_two_connections(
    two_connections: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads whose statements have no owner filter share two connections in PgBouncer's transaction mode."""
    # By its name alone a statement can't be rewritten.
    monkeypatch.setattr(prepared, "MAX_PREPARED", 0)
    app = create_app(settings_for(two_connections.dsn(), pool_size=8))
    users = [user_of(app, f"user{number}") for number in range(8)]
    for user in users:
        user.create(user.id, completed=True)
    two_connections.rewrite = without_owner_filter
    wrong: list[Any] = []

    def work(number: int) -> None:
        user, other = again(users[number]), users[number - 1]
        for turn in range(12):
            seen = [
                {task["user_id"] for task in user.get("/api/tasks?search=user").json},
                {change["task"]["user_id"] for change in user.get("/api/tasks/changes").json["changes"]},
                {
                    user.post("/api/tasks", json={"title": user.id}, headers={"Idempotency-Key": f"{turn}"}).json[
                        "user_id"
                    ]
                },
            ]
            counts = user.get("/api/tasks/stats").json["completed"], user.get(f"/api/{other.id}/tasks").status_code
            if seen != [{user.id}] * 3 or counts != (1, 403):
                wrong.append((seen, counts))

    at_once(8, work)
    assert wrong == []
    listed = [sql for sql in two_connections.queries if "LATERAL" in sql]
    assert len(listed) >= 96
    assert all("tasks.user_id = " in sql and "tasks.user_id = " not in without_owner_filter(sql) for sql in listed)
    two_connections.rewrite = None
    assert [again(user).titles() for user in users] == [[user.id] * 13 for user in users]


def test_users_that_differ_in_case_or_form_are_different(app: Flask) -> None:
    names = ["josé", "jose\u0301", "JOSÉ", "Josė", "jose", "jose "]
    users = [User(name, app.test_client(), token(name, SECRET)) for name in names]
    for user in users:
        user.create(user.id)
    assert [user.titles() for user in users] == [[name.strip()] for name in names]

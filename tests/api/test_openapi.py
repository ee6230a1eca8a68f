"""The API document is complete enough to build a client from, and says what the service does."""

import re
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient
from openapi_schema_validator import OAS31Validator, oas31_format_checker
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.conftest import ORIGIN, User, assert_problem, token
from tests.support.npm import install, run
from todo_service.db.models import PRIORITIES
from todo_service.http.conditions import JSON_OPTIONS, answer
from todo_service.schemas.parameters import LIST_ALIASES
from todo_service.schemas.tasks import Task, task_out
from todo_service.tasks.queries import ChangedRow

OPERATIONS = {
    "listTasks": "get /api/tasks",
    "createTask": "post /api/tasks",
    "deleteTasks": "delete /api/tasks",
    "getTask": "get /api/tasks/{id}",
    "putTask": "put /api/tasks/{id}",
    "updateTask": "patch /api/tasks/{id}",
    "deleteTask": "delete /api/tasks/{id}",
    "restoreTask": "post /api/tasks/{id}/restore",
    "completeTask": "patch /api/tasks/{id}/complete",
    "runBatch": "post /api/tasks/batch",
    "listChanges": "get /api/tasks/changes",
    "getStats": "get /api/tasks/stats",
}
SERVER_SET = {"id", "user_id", "completed_at", "created_at", "updated_at", "deleted_at", "version"}
COUNTED = {"checklist_done", "checklist_total"}
LINTERS = Path(__file__).with_name("linters")


@pytest.fixture(scope="module")
def document(app: Flask) -> dict[str, Any]:
    response = app.test_client().get("/api/openapi.json")
    assert response.content_type == "application/json"
    document: dict[str, Any] = response.get_json()
    return document


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Operations by "method path"."""
    paths = document["paths"].items()
    return {f"{method} {path}": operation for path, methods in paths for method, operation in methods.items()}


@pytest.fixture(scope="module")
def schemas(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["components"]["schemas"]
    return found


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a JSON value."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(inner)


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The node, or what its `$ref` points to. Raises KeyError where that is nothing."""
    while "$ref" in node:
        target: Any = document
        for name in node["$ref"].removeprefix("#/").split("/"):
            target = target[name]
        node = target
    return node


def expanded(document: dict[str, Any], value: Any) -> Any:
    """The value with every `$ref` replaced by what it points to."""
    if isinstance(value, dict):
        return {name: expanded(document, inner) for name, inner in resolve(document, value).items()}
    return [expanded(document, inner) for inner in value] if isinstance(value, list) else value


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Hold a value against a schema of the document, formats included."""
    OAS31Validator(expanded(document, schema), format_checker=oas31_format_checker).validate(value)


@pytest.mark.parametrize("path", ["/", "/api", "/api/", "/docs", "/docs/"])
def test_addresses_that_people_try_lead_to_the_documentation(client: FlaskClient, path: str) -> None:
    for method in ("GET", "HEAD"):
        response = client.open(path, method=method)
        assert (response.status_code, response.headers["Location"]) == (302, "/api/docs")
        assert response.headers["Cache-Control"] == "no-store"
    assert "swagger-ui" in client.get(path, follow_redirects=True).text
    assert_problem(client.post(path), 405)


def test_users_called_like_a_page_have_tasks(app: Flask) -> None:
    for name in ("docs", "api", "openapi.json"):
        user = User(name, app.test_client(), token(name))
        assert user.get(f"/api/{name}/tasks").status_code == 200


def test_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


@pytest.mark.parametrize(
    "linter",
    [
        ("redocly", "lint", "--extends=recommended", "--format=json"),
        ("spectral", "lint", "--ruleset", str(LINTERS / "spectral.json"), "--format=json", "--quiet"),
    ],
    ids=lambda linter: linter[0],
)
def test_linters_find_nothing(document: dict[str, Any], tmp_path: Path, linter: tuple[str, ...]) -> None:
    install(LINTERS)
    (tmp_path / "openapi.json").write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    name, *options = linter
    # Nothing is told to the linter's makers, nor asked of them.
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"}
    done = run(str(LINTERS / "node_modules" / ".bin" / name), *options, "openapi.json", cwd=tmp_path, **quiet)
    assert done.stdout, done.stderr
    found = orjson.loads(done.stdout)
    problems = found["problems"] if name == "redocly" else found
    assert [problem["message"] for problem in problems] == []
    assert done.returncode == 0, done.stderr


def test_references_resolve_and_nothing_is_left_over(document: dict[str, Any]) -> None:
    used = {node["$ref"] for node in nodes(document) if "$ref" in node}
    for reference in used:
        assert resolve(document, {"$ref": reference})
    kinds = ("schemas", "responses")
    assert used == {f"#/components/{kind}/{name}" for kind in kinds for name in document["components"][kind]}


def test_every_route_is_documented_once(app: Flask, operations: dict[str, Any]) -> None:
    routes = [
        " ".join([method.lower(), re.sub("<(?:[a-z]+:)?([a-z]+)>", r"{\1}", rule.rule)])
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/tasks")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    ]
    assert sorted(routes) == sorted(operations)
    assert "user_id" not in str(list(operations))


def test_operations_are_named_and_secured(document: dict[str, Any], operations: dict[str, Any]) -> None:
    ids = {operation["operationId"]: name for name, operation in operations.items()}
    assert len(ids) == len(operations)
    assert OPERATIONS.items() <= ids.items()
    assert all(re.fullmatch("[a-z]+([A-Z][a-z]+)*", id) for id in ids)
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for operation in operations.values():
        assert operation["summary"]
        assert operation["tags"]
        assert tags.issuperset(operation["tags"])
        assert operation["security"] == [{"bearer": []}]


def test_parameters_are_described(operations: dict[str, Any]) -> None:
    for name, operation in operations.items():
        parameters = {parameter["name"]: parameter for parameter in operation["parameters"]}
        assert all(parameter["description"] for parameter in parameters.values()), name
        assert all(parameter["schema"]["type"] for parameter in parameters.values()), name
        # A parameter's own example would be filled in by Swagger UI, and sent by those who don't remove it.
        assert not any("example" in parameter for parameter in parameters.values()), name
        assert "tz" not in parameters or parameters["tz"]["schema"]["format"] == "time-zone"
        if "{id}" in name:
            assert parameters["id"]["schema"]["format"] == "uuid"
            assert parameters["id"]["schema"]["examples"]


def test_bodies_and_answers_have_examples_that_fit(document: dict[str, Any], operations: dict[str, Any]) -> None:
    bodies = {operation["operationId"] for operation in operations.values() if "requestBody" in operation}
    assert {"createTask", "putTask", "updateTask", "completeTask", "runBatch"} <= bodies
    for operation in operations.values():
        contents = [operation["requestBody"]] if "requestBody" in operation else []
        [success] = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        for content in [*contents, success]:
            schema = content["content"]["application/json"]["schema"]
            check(document, schema, example_of(document, schema))


def example_of(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """The example of a schema, or the one made of its properties' examples. Raises KeyError where one is missing."""
    schema = resolve(document, schema)
    for kinds in ("anyOf", "oneOf", "allOf"):
        if "example" not in schema and kinds in schema:
            return example_of(document, schema[kinds][0])
    if "example" not in schema and schema["type"] == "array":
        return [example_of(document, schema["items"])]
    if "example" not in schema and schema["type"] == "object":
        return {name: example_of(document, inner) for name, inner in schema["properties"].items()}
    return schema["example"]


def test_errors_are_problems(document: dict[str, Any], operations: dict[str, Any]) -> None:
    for name, operation in operations.items():
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"400", "401", "503"} <= set(errors), name
        assert {"403", "404"} <= set(errors) or "{id}" not in name
        for status, error in errors.items():
            error = resolve(document, error)
            assert error["description"]
            [(kind, content)] = error["content"].items()
            assert kind == "application/problem+json"
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert content["example"]["status"] == int(status)
            check(document, content["schema"], content["example"])


def names(operation: dict[str, Any], place: str) -> set[str]:
    return {parameter["name"] for parameter in operation["parameters"] if parameter["in"] == place}


def test_every_post_takes_an_idempotency_key(operations: dict[str, Any]) -> None:
    posts = {name for name in operations if name.startswith("post ")}
    assert {name for name, operation in operations.items() if "Idempotency-Key" in names(operation, "header")} == posts
    assert {name for name, operation in operations.items() if "409" in operation["responses"]} == posts
    for name in posts:
        [success] = [answer for status, answer in operations[name]["responses"].items() if status.startswith("2")]
        assert "Idempotency-Replayed" in success["headers"], name
        assert {"403", "422"} <= set(operations[name]["responses"]), name


def test_conditions_are_documented_where_they_hold(
    alice: User, document: dict[str, Any], operations: dict[str, Any]
) -> None:
    """If-None-Match where the answer has an ETag, If-Match on each change of what is there; 410 with sync tokens."""
    id = alice.create()["id"]
    for name, operation in operations.items():
        method, path = name.split(" ")
        if method == "get":
            response = alice.get(path.replace("{id}", id))
            assert response.status_code == 200, name
            has_etag = "ETag" in response.headers
            assert ("If-None-Match" in names(operation, "header")) is has_etag, name
            assert ("304" in operation["responses"]) is has_etag, name
            assert ("ETag" in operation["responses"]["200"].get("headers", {})) is has_etag, name
        changes_what_is_there = method == "delete" or ("{id}" in path and method != "get")
        assert ("If-Match" in names(operation, "header")) is changes_what_is_there, name
        assert ("412" in operation["responses"]) is ("If-Match" in names(operation, "header") or "batch" in path), name
        assert ("410" in operation["responses"]) is ("since" in names(operation, "query")), name
    assert {"403", "404"} <= set(operations["post /api/tasks/batch"]["responses"])
    assert "X-Total-Count" in operations["get /api/tasks"]["responses"]["200"]["headers"]


def test_documented_headers_can_be_read_by_a_page(
    alice: User, document: dict[str, Any], operations: dict[str, Any]
) -> None:
    """A browser hides all others from a page of another origin."""
    exposed = alice.get("/api/tasks", headers={"Origin": ORIGIN}).headers["Access-Control-Expose-Headers"].split(", ")
    for name, operation in operations.items():
        for status, response in operation["responses"].items():
            named = set(resolve(document, response).get("headers", {})) - {"Allow", "WWW-Authenticate"}
            assert named <= set(exposed), (name, status)


def test_other_spellings_are_not_documented(operations: dict[str, Any]) -> None:
    parameters = {parameter["name"]: parameter["schema"] for parameter in operations["get /api/tasks"]["parameters"]}
    assert not parameters.keys() & set(LIST_ALIASES)
    assert parameters["sort"]["enum"] == [
        *("created_at", "updated_at", "completed_at", "due_date", "priority", "title", "position")
    ]


def test_every_field_has_a_type(schemas: dict[str, Any]) -> None:
    for name, schema in schemas.items():
        assert ("properties" in schema) is not ("oneOf" in schema), name
        for field, described in schema.get("properties", {}).items():
            assert described.keys() & {"type", "anyOf", "$ref"}, f"{name}.{field}"
            assert "items" in described or "array" not in described.get("type", ""), f"{name}.{field}"


def test_task_fields(schemas: dict[str, Any]) -> None:
    task = schemas["Task"]["properties"]
    kinds = {name: [kind["type"] for kind in field.get("anyOf", [field])] for name, field in task.items()}
    times = [name for name, field in task.items() if field.get("format") == "date-time"]
    assert times == ["completed_at", "created_at", "updated_at", "deleted_at"]
    assert task["priority"]["enum"] == ["low", "medium", "high"]
    assert kinds["priority"] == ["string"]
    nullable = [name for name, [kind, *_] in kinds.items() if kind == ["string", "null"]]
    assert nullable == ["description", "completed_at", "category", "recurrence", "deleted_at"]
    assert task["repeat_from"]["enum"] == ["due", "completion"]
    assert [field.get("format") for field in task["due_date"]["anyOf"]] == ["date", "date-time", None]
    assert kinds["due_date"] == ["string", "string", "null"]
    assert set(schemas["Task"]["required"]) == set(task)
    assert schemas["TaskCreate"]["required"] == ["title"]
    assert "required" not in schemas["TaskUpdate"]
    for name in ("TaskCreate", "TaskUpdate"):
        given = schemas[name]["properties"]
        assert given["priority"]["enum"] == ["low", "medium", "high", None]
        assert given["repeat_from"]["enum"] == ["due", "completion", None]
        # A new task's id may be the client's.
        assert given.keys() == task.keys() - SERVER_SET - COUNTED | ({"id"} if name == "TaskCreate" else set())
    # Generators take a field with a default for one that has to be sent.
    assert not any("default" in node for schema in schemas.values() for node in nodes(schema))
    # What is unknown is ignored, and a generated client must not choke on a field that is added one day.
    assert all("additionalProperties" not in schema for schema in schemas.values())


def success_of(operation: dict[str, Any]) -> dict[str, Any]:
    [success] = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    schema: dict[str, Any] = success["content"]["application/json"]["schema"]
    return schema


def test_answers_of_many_fit_the_document(alice: User, document: dict[str, Any], operations: dict[str, Any]) -> None:
    """Batch, changes and stats: right types, and all of the documented fields, no others."""
    kept, gone = (alice.create(due_date="2026-12-31", recurrence="daily", tags=["a"]) for _ in range(2))
    answers = {
        "post /api/tasks/batch": alice.post(
            "/api/tasks/batch",
            json={
                "operations": [
                    {"op": "create", "task": {"title": "x", "tags": ["a", "b"]}},
                    {"op": "complete", "id": kept["id"]},
                    {"op": "delete", "id": gone["id"], "permanent": True},
                ]
            },
        ),
        "get /api/tasks/changes": alice.get("/api/tasks/changes"),
        "get /api/tasks/stats": alice.get("/api/tasks/stats"),
    }
    for name, response in answers.items():
        assert response.status_code == 200, response.text
        schema = expanded(document, success_of(operations[name]))
        check(document, schema, response.json)
        assert response.json.keys() == schema["properties"].keys(), name
    assert {change["purged"] for change in answers["get /api/tasks/changes"].json["changes"]} == {True, False}
    for change in answers["get /api/tasks/changes"].json["changes"]:
        exact(document, {"$ref": "#/components/schemas/Change"}, change)


def exact(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """An object has the documented fields, all of them and no others, and so has what is in it."""
    schema = resolve(document, schema)
    if isinstance(value, list):
        for item in value:
            exact(document, schema["items"], item)
    kinds = [resolve(document, kind) for kind in schema.get("anyOf", schema.get("oneOf", [schema]))]
    kinds = [kind for kind in kinds if fits(document, kind, value)]
    [properties] = [kind["properties"] for kind in kinds if "properties" in kind] or [None]
    if isinstance(value, dict) and properties is not None:
        assert value.keys() == properties.keys()
        for name, inner in value.items():
            exact(document, properties[name], inner)


def test_every_answer_has_exactly_the_documented_fields(
    alice: User, document: dict[str, Any], operations: dict[str, Any]
) -> None:
    """OWASP API3:2023, OWASP ASVS 5.0 V15.3.1: of what is stored, nothing else gets out."""
    for name, operation in operations.items():
        method, path = name.split(" ")
        task = alice.create(due_date="2026-12-31", recurrence="daily", tags=["a"], checklist=[{"title": "b"}])
        body = {
            "title": "x",
            "operations": [{"op": "update", "id": task["id"], "task": {"title": "x"}}],
            "tasks": [{"title": "x"}],
            "after": None,
        }
        query = "?status=completed" if name == "delete /api/tasks" else ""
        url = path.replace("{id}", task["id"]).replace("{n}", "0") + query
        response = alice.request(method.upper(), url, json=None if method == "get" else body)
        assert response.status_code in (200, 201), response.text
        exact(document, success_of(operation), response.json)
    problem = assert_problem(alice.get("/api/tasks/x"), 404)
    exact(document, {"$ref": "#/components/schemas/Problem"}, problem)


def test_one_field_tells_the_forms_of_operations_and_changes_apart(schemas: dict[str, Any]) -> None:
    for name, field in (("Operation", "op"), ("Change", "purged")):
        forms = [schemas[form["$ref"].rpartition("/")[2]] for form in schemas[name]["oneOf"]]
        assert all(field in form["required"] for form in forms)
        values = [form["properties"][field]["enum"] for form in forms]
        assert values == ([["create"], ["update"], ["complete"], ["delete"]] if field == "op" else [[False], [True]])
    told = schemas["Operation"]["discriminator"]
    assert (told["propertyName"], list(told["mapping"])) == ("op", ["create", "update", "complete", "delete"])


@pytest.mark.parametrize("due_date", [None, "2026-12-31", "2026-12-31T18:00:00+01:00"])
def test_answers_fit_the_document(alice: User, document: dict[str, Any], due_date: str | None) -> None:
    task = alice.create(due_date=due_date)
    check(document, {"$ref": "#/components/schemas/Task"}, task)
    assert task.keys() == document["components"]["schemas"]["Task"]["properties"].keys()
    missing = alice.get("/api/tasks/00000000-0000-7000-8000-000000000000").get_json(force=True)
    check(document, {"$ref": "#/components/schemas/Problem"}, missing)


MOMENT = datetime(2026, 12, 31, 17, 0, 0, 123456)
ROW: dict[str, Any] = {
    "id": "0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10",
    "user_id": "alice",
    "title": "Buy milk",
    "description": None,
    "completed": False,
    "completed_at": None,
    "priority": 2,
    "due_on": None,
    "due_at": None,
    "category": None,
    "tags": [],
    "checklist": [],
    "recurrence": None,
    "repeat_from": "due",
    "position": 1.0,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "deleted_at": None,
    "version": 1,
}
ROWS: dict[str, dict[str, Any]] = {
    "nulls": {},
    "full": {
        "description": "Oat",
        "category": "Food",
        "completed": True,
        "completed_at": MOMENT,
        "priority": 3,
        "tags": ["home", "a,b"],
    }
    | {"checklist": [{"title": "a", "completed": True}, {"title": "ß", "completed": False}]}
    | {"recurrence": "FREQ=DAILY;COUNT=3", "repeat_from": "completion"}
    | {"position": -0.5, "deleted_at": MOMENT, "version": 2**53},
    "a day": {"due_on": date(2026, 12, 31), "priority": 1},
    "the first day": {"due_on": date(1970, 1, 1)},
    "a moment": {"due_at": MOMENT},
    "no microseconds": {"due_at": MOMENT.replace(microsecond=0), "created_at": MOMENT.replace(microsecond=0)},
    "few microseconds": {"due_at": MOMENT.replace(microsecond=1), "updated_at": MOMENT.replace(microsecond=120_000)},
    "unicode": {
        "title": 'Größe 牛乳 🥛 \u200f"\\\n',
        "description": "é e\u0301",
        "user_id": "ünïcode",
        "tags": ["日本"],
    },
    "large": {"position": 1e12, "due_at": datetime(9999, 12, 31, 23, 59, 59, 999_999)},
}


def task_of(values: dict[str, Any]) -> SimpleNamespace:
    """What the schema Task makes its answer of."""
    task = SimpleNamespace(**values)
    task.due_date = values["due_on"] or values["due_at"]
    task.checklist_total = len(values["checklist"])
    task.checklist_done = [item["completed"] for item in values["checklist"]].count(True)
    task.priority = PRIORITIES[values["priority"] - 1]
    return task


@pytest.mark.parametrize("changes", ROWS.values(), ids=ROWS.keys())
def test_fast_way_out_equals_the_schema(changes: dict[str, Any]) -> None:
    values = ROW | changes
    task = task_of(values)
    row = ChangedRow(etag="", **values)
    assert answer(task_out(row)).get_data() == orjson.dumps(Task().dump(task), option=JSON_OPTIONS)


# Nobody's; the one in the examples may be a task that another test has made of them.
ID = "0197c9a4-6d2f-7c3e-9b41-404404404404"
BODIES: list[tuple[str, dict[str, Any], bool]] = [
    ("TaskCreate", {"title": "\ta \n"}, True),
    ("TaskCreate", {"title": " \t\u2003\x1f\x85"}, False),
    ("TaskCreate", {"title": "a\0"}, False),
    ("TaskCreate", {"title": "a", "description": " "}, True),
    ("TaskCreate", {"title": "a", "description": "\0"}, False),
    ("TaskCreate", {"title": "a", "id": "5f1c6d1e-8f0b-4c39-a3a6-0a2e5f4d7b11"}, True),
    ("TaskCreate", {"title": "a", "id": None}, True),
    ("TaskCreate", {"title": "a", "category": " "}, True),
    ("TaskCreate", {"title": "a", "category": "a\0"}, False),
    ("TaskCreate", {"title": "a", "category": "x" * 51}, False),
    ("TaskCreate", {"title": "a", "checklist": [{"title": " b "}, {"title": "c", "completed": True}]}, True),
    ("TaskCreate", {"title": "a", "checklist": [{"title": " "}]}, False),
    ("TaskCreate", {"title": "a", "checklist": [{"title": "b\nc"}]}, False),
    ("TaskCreate", {"title": "a", "checklist": [{"completed": True}]}, False),
    ("TaskCreate", {"title": "a", "tags": [" a"]}, True),
    ("TaskCreate", {"title": "a", "tags": ["a", " "]}, False),
    ("TaskCreate", {"title": "a", "due_date": "1970-01-01"}, True),
    ("TaskCreate", {"title": "a", "due_date": "9999-12-31T23:59:59Z"}, True),
    ("TaskCreate", {"title": "a", "due_date": "1969-12-31"}, False),
    ("TaskCreate", {"title": "a", "due_date": "0970-12-31T18:00:00Z"}, False),
    ("Operation", {"op": "create", "task": {"title": "a"}}, True),
    ("Operation", {"op": "create", "task": {}}, False),
    ("Operation", {"op": "create"}, False),
    ("Operation", {"op": "update", "id": ID, "task": {}}, True),
    ("Operation", {"op": "update", "id": ID}, False),
    ("Operation", {"op": "update", "task": {}}, False),
    ("Operation", {"op": "complete", "id": ID, "version": 17}, True),
    ("Operation", {"op": "complete", "id": ID, "version": 17.0}, True),
    ("Operation", {"op": "complete", "id": ID, "version": 17.5}, False),
    ("Operation", {"op": "complete", "id": ID, "version": 1 << 63}, False),
    ("Operation", {"op": "complete"}, False),
    ("Operation", {"op": "delete"}, False),
    ("ImportFile", {"tasks": [], "version": 1}, True),
    ("ImportFile", {"tasks": [], "version": 2}, False),
    ("ImportFile", {"tasks": [{"title": "a", "created_at": "2026-12-31T18:00:00Z"}]}, True),
    ("ImportFile", {"tasks": [{"title": "a", "created_at": "1969-12-31T18:00:00Z"}]}, False),
]


def fits(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    validator = OAS31Validator(expanded(document, schema), format_checker=oas31_format_checker)
    return bool(validator.is_valid(value))


@pytest.mark.parametrize(("name", "body", "good"), BODIES, ids=str)
def test_document_and_service_take_the_same_bodies(
    alice: User, document: dict[str, Any], name: str, body: dict[str, Any], good: bool
) -> None:
    assert fits(document, {"$ref": f"#/components/schemas/{name}"}, body) is good
    path = {"TaskCreate": "/api/tasks", "Operation": "/api/tasks/batch", "ImportFile": "/api/tasks/import"}[name]
    response = alice.post(path, json={"operations": [body]} if name == "Operation" else body)
    assert response.status_code in ((200, 201, 404) if good else (422,))


@pytest.mark.parametrize(
    ("name", "value", "good"),
    [
        ("due_before", "2026-12-31", True),
        ("due_after", "2026-12-31T18:00:00+01:00", True),
        ("due_after", "", False),
        ("due_before", "tomorrow", False),
        ("completed_after", "2026-12-31", True),
        ("updated_after", "2026-12-31T18:00:00", False),
        ("due_before", "1969-12-31", False),
        ("search", "\0", False),
        ("category", "Home", True),
        ("category", " ", False),
        ("Idempotency-Key", "any text, <as> it is", True),
        ("Idempotency-Key", "é", False),
        ("Idempotency-Key", "a\tb", False),
        ("Idempotency-Key", "", False),
    ],
)
def test_document_and_service_take_the_same_parameters(
    alice: User, document: dict[str, Any], operations: dict[str, Any], name: str, value: str, good: bool
) -> None:
    key = name == "Idempotency-Key"
    operation = operations["post /api/tasks" if key else "get /api/tasks"]
    [schema] = [parameter["schema"] for parameter in operation["parameters"] if parameter["name"] == name]
    assert fits(document, schema, value) is good
    response = (
        alice.post("/api/tasks", json={"title": "a"}, headers={name: value})
        if key
        else alice.get("/api/tasks", query_string={name: value})
    )
    assert response.status_code in ((200, 201) if good else (422,))

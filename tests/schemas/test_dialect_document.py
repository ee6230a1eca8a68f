"""The API's document in a dialect: as complete and as true as the contract's own."""

import re
from typing import Any

import orjson
import pytest
from flask import Flask
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.api.test_openapi import ROW, ROWS, check, exact, example_of, expanded, nodes, resolve, success_of, task_of
from tests.conftest import settings_for, user_of
from tests.schemas.test_dialects import CONVERSATIONS, FULL
from todo_service import create_app
from todo_service.dialect import parse
from todo_service.http.conditions import JSON_OPTIONS
from todo_service.schemas.dialect import Shapes
from todo_service.schemas.tasks import Task
from todo_service.tasks.queries import ChangedRow

DIALECTS = [dialect for dialect in CONVERSATIONS if dialect != FULL and len(dialect) > 30] + [FULL]
OTHER = (
    "list=items done=status:pending/completed verbs=complete,set-done names=title:text,recurrence:repeat tags=; url=url"
)


@pytest.fixture(scope="module", params=[*DIALECTS, OTHER])
def spoken(request: pytest.FixtureRequest, database_url: str) -> tuple[Flask, str]:
    return create_app(settings_for(database_url, dialect=parse(request.param))), request.param


@pytest.fixture
def document(spoken: tuple[Flask, str]) -> dict[str, Any]:
    document: dict[str, Any] = spoken[0].test_client().get("/api/openapi.json").get_json()
    return document


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{verb} {path}": told for path, there in document["paths"].items() for verb, told in there.items()}


def test_it_is_valid_and_hangs_together(document: dict[str, Any]) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    used = {node["$ref"] for node in nodes(document) if "$ref" in node}
    kinds = ("schemas", "responses")
    assert used == {f"#/components/{kind}/{name}" for kind in kinds for name in document["components"][kind]}
    ids = [operation["operationId"] for operation in operations(document).values()]
    assert len(set(ids)) == len(ids)
    assert not any("default" in node for node in nodes(document["components"]["schemas"]))
    assert not any("example" in given for told in operations(document).values() for given in told["parameters"])


def test_every_route_is_in_it_once(spoken: tuple[Flask, str], document: dict[str, Any]) -> None:
    """At the first of the dialect's paths; the others, and those with a user in them, are told of."""
    app, dialect = spoken
    paths = parse(dialect).paths or ("/api/tasks",)
    routes = [
        f"{method.lower()} {re.sub(r'<(?:task:)?', '{', rule.rule).replace('>', '}')}"
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith((f"{paths[0]}/", paths[0])) and rule.endpoint.partition(".")[0] != "docs"
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    ]
    assert sorted(routes) == sorted(operations(document))
    assert all(f"`{path}`" in document["info"]["description"] for path in paths)


def test_its_examples_fit(document: dict[str, Any]) -> None:
    for operation in operations(document).values():
        contents = [operation["requestBody"]] if "requestBody" in operation else []
        [success] = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        for content in [*contents, success]:
            schema = content["content"]["application/json"]["schema"]
            check(document, schema, example_of(document, schema))


def test_its_examples_are_taken(spoken: tuple[Flask, str], document: dict[str, Any]) -> None:
    alice = user_of(spoken[0], "alice")
    for name in ("createTask", "runBatch", "importTasks"):
        [(key, operation)] = [item for item in operations(document).items() if item[1]["operationId"] == name]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        answer = alice.post(key.removeprefix("post "), json=example_of(document, schema))
        assert answer.status_code in (200, 201), answer.text


def test_every_answer_has_exactly_the_documented_fields(spoken: tuple[Flask, str], document: dict[str, Any]) -> None:
    app, dialect = spoken
    alice = user_of(app, "alice")
    root = (parse(dialect).paths or ("/api/tasks",))[0]
    for name, operation in operations(document).items():
        method, path = name.split(" ")
        fields: dict[str, Any] = {"title": "x", "text": "x", "due_date": "2026-12-31", "recurrence": "daily"}
        fields |= {"checklist": [{"title": "x"}]}
        id = alice.post(root, json=fields).headers["Location"].rpartition("/")[2]
        body = fields | {
            "operations": [{"op": "update", "id": id, "task": {"description": "x"}}],
            "tasks": [{"title": "x"}],
            "after": None,
        }
        query = "?status=all" if name == f"delete {root}" else ""
        address = path.replace("{id}", id).replace("{n}", "0") + query
        answer = alice.request(method.upper(), address, json=None if method == "get" else body)
        assert answer.status_code in (200, 201), answer.text
        schema = success_of(operation)
        check(document, schema, answer.json)
        exact(document, schema, answer.json)
    problem = alice.get(f"{root}/x")
    [(kind, content)] = resolve(document, operations(document)[f"get {root}/{{id}}"]["responses"]["404"])[
        "content"
    ].items()
    assert kind == problem.content_type
    exact(document, content["schema"], problem.get_json(force=True))


def test_bodies_and_parameters_are_the_dialects(database_url: str) -> None:
    app = create_app(settings_for(database_url, dialect=parse(FULL)))
    document = app.test_client().get("/api/openapi.json").get_json()
    schemas = document["components"]["schemas"]
    create, task = schemas["TaskCreate"]["properties"], schemas["Task"]["properties"]
    assert {"is_completed", "order", "dueDate"} <= create.keys()
    assert "required" not in schemas["TaskCreate"]
    assert task.keys() - create.keys() == {
        *("user_id", "completed_at", "created_at", "updated_at", "deleted_at", "version", "url"),
        *("checklist_done", "checklist_total"),
    }
    assert set(schemas["Task"]["required"]) == task.keys()
    assert task["priority"]["enum"] == ["P3", "P2", "P1"]
    assert create["priority"]["enum"] == ["P3", "P2", "P1", None]
    assert create["tags"]["type"] == task["tags"]["type"] == ["string", "null"]
    listing = document["paths"]["/api/todos"]["get"]
    parameters = {parameter["name"]: parameter for parameter in listing["parameters"]}
    assert parameters["is_completed"]["schema"]["type"] == "boolean"
    assert {"order", "dueDate"} <= set(parameters["sort"]["schema"]["enum"])
    assert parameters["priority"]["schema"]["items"]["enum"] == ["P3", "P2", "P1"]
    [sweep] = [p for p in document["paths"]["/api/todos"]["delete"]["parameters"] if p["name"] == "status"]
    assert (sweep["required"], sweep["schema"]["default"]) == (False, "all")
    assert expanded(document, success_of(listing))["required"] == ["tasks", "total"]
    assert schemas["CompleteOperation"]["properties"].keys() >= {"completed", "is_completed"}
    assert schemas["ByPriority"]["properties"].keys() == {"P3", "P2", "P1"}
    statuses = document["paths"]["/api/todos/{id}/toggle"]
    assert {method: told["operationId"] for method, told in statuses.items()} == {
        "patch": "toggleTask",
        "post": "postToggleTask",
        "put": "putToggleTask",
    }
    keys = [parameter["name"] for parameter in statuses["post"]["parameters"]]
    assert "Idempotency-Key" in keys


@pytest.mark.parametrize("dialect", [*CONVERSATIONS, OTHER])
@pytest.mark.parametrize("changes", ROWS.values(), ids=ROWS.keys())
def test_fast_way_out_equals_the_schema(changes: dict[str, Any], dialect: str) -> None:
    shapes = Shapes(parse(dialect), lambda: "https://tasks.example.com/api/tasks")
    values = ROW | changes
    row = ChangedRow(etag="", **values)
    found = shapes.out()(row)
    said = task_of(values)
    for name, new in shapes.dialect.names:
        setattr(said, new, getattr(said, name))
    if shapes.dialect.done:
        setattr(said, shapes.dialect.done, said.completed)
    if shapes.dialect.url:
        setattr(said, shapes.dialect.url, f"https://tasks.example.com/api/tasks/{said.id}")
    schema = shapes.schema(Task())
    assert orjson.dumps(found, option=JSON_OPTIONS) == orjson.dumps(schema.dump(said), option=JSON_OPTIONS)

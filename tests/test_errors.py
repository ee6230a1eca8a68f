"""Every failure is a problem (RFC 9457): the same members, the headers that belong to it, nothing of the inside."""

import json
import logging
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import ORIGIN, User, assert_problem, settings_for, token, user_of
from todo_service import create_app
from todo_service.api.blueprint import BESIDE

JSON = {"Content-Type": "application/json"}
ID = "0197c9a4-6d2f-7c3e-9b41-404404404404"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        # RFC 8259 2: broken, trailing
        (b"{", 400),
        (b"\0", 400),
        (b'{"title": "x"} trailing', 400),
        (b'{"title": "x"}{"title": "y"}', 400),
        (b"{'title': 'x'}", 400),
        (b'{"title": "x",}', 400),
        (b'{"title": "x\n"}', 400),
        # RFC 8259 6: numbers are digits, wherever they stand
        (b'{"title": "x", "position": NaN}', 400),
        (b'{"title": "x", "a": Infinity}', 400),
        (b'{"title": "x", "a": {"b": [1, -Infinity]}}', 400),
        (b'{"title": NaN}', 400),
        (b"NaN", 400),
        # RFC 8259 8.1: UTF-8, without a byte order mark
        ('{"title": "x"}'.encode("utf-16"), 400),
        ('{"title": "x"}'.encode("utf-16-le"), 400),
        ('{"title": "x"}'.encode("utf-32"), 400),
        (b'{"title": "\xff"}', 400),
        (b'{"title": "\xed\xa0\x80"}', 400),
        (b'{"title": "\xc0\x80"}', 400),
        (b'\xef\xbb\xbf{"title": "x"}', 400),
        # RFC 8259 4: names that are unique
        (b'{"title": "x", "title": "y"}', 400),
        (b'{"title": "x", "t\\u0069tle": "y"}', 400),
        (b'{"title": "x", "other": {"a": 1, "a": 2}}', 400),
        # RFC 8259 9: a limit to depth
        (b'{"title": "x", "deep": ' + b"[" * 32 + b"]" * 32 + b"}", 400),
        (b'{"title": "x", "deep": ' + b'{"a":' * 32 + b"1" + b"}" * 32 + b"}", 400),
        (b"[" * 200_000, 400),
        (b"[" * 200_000 + b"]" * 200_000, 400),
        # OWASP ASVS 5.0 V15.3.5: an object, and nothing else
        (b"null", 422),
        (b"[]", 422),
        (b'[{"title": "x"}]', 422),
        (b'"title"', 422),
        (b"17", 422),
        (b"true", 422),
        # CVE-2020-10735: numbers that take long to read
        (b'{"title": ' + b"1" * 5000 + b"}", 422),
        (b'{"title": "x", "other": -' + b"1" * 5000 + b"}", 422),
    ],
)
@pytest.mark.parametrize("way", ["POST", "POST /batch", "PUT /{id}", "PATCH /{id}", "PATCH /{id}/complete"])
def test_body_that_is_no_object(alice: User, body: bytes, status: int, way: str) -> None:
    task = alice.create()
    method, _, below = way.partition(" ")
    path = f"/api/tasks{below.format(id=task['id'])}"
    assert_problem(alice.request(method, path, data=body, headers=JSON), status)
    assert alice.get("/api/tasks").json == [task]


def test_body_that_is_missing(alice: User) -> None:
    assert_problem(alice.post("/api/tasks", data=b"", headers=JSON), 400)
    assert_problem(alice.patch(f"/api/tasks/{alice.create()['id']}", data=b"", headers=JSON), 400)


def test_depth_up_to_the_limit_is_fine(alice: User) -> None:
    body = b'{"title": "x", "deep": ' + b"[" * 31 + b"]" * 31 + b"}"
    assert alice.post("/api/tasks", data=body, headers=JSON).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": ""},
        {"Content-Type": "text/plain"},
        {"Content-Type": "text/json"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
@pytest.mark.parametrize(
    "way", ["POST", "POST /batch", "POST /import", "PUT /{id}", "PATCH /{id}", "PATCH /{id}/complete"]
)
def test_body_that_is_not_json(alice: User, headers: dict[str, str], way: str) -> None:
    """RFC 9110, section 15.5.16: of another type, of none, or compressed."""
    task = alice.create()
    method, _, below = way.partition(" ")
    body = b'{"title": "x", "completed": true, "operations": [{"op": "create", "task": {"title": "x"}}], "tasks": []}'
    response = alice.request(method, f"/api/tasks{below.format(id=task['id'])}", data=body, headers=headers)
    assert_problem(response, 415, "unsupported-media-type")
    assert alice.get("/api/tasks").json == [task]


@pytest.mark.parametrize(
    "type", ["application/json; charset=utf-8", "application/merge-patch+json", "APPLICATION/JSON"]
)
def test_other_names_of_json(alice: User, type: str) -> None:
    path = f"/api/tasks/{alice.create()['id']}"
    assert alice.patch(path, data=b'{"title": "x"}', headers={"Content-Type": type}).status_code == 200


def test_body_too_large(alice: User) -> None:
    body = json.dumps({"title": "x", "padding": "p" * 1024 * 1024})
    assert_problem(alice.post("/api/tasks", data=body, headers=JSON), 413, "body-too-large")
    assert alice.titles() == []


@pytest.mark.parametrize("path", ["/nothing", "/api/nothing", "/api//tasks", "/health", "/api/tasks/a/b", "/admin.php"])
def test_unknown_address(client: FlaskClient, path: str) -> None:
    assert "/api/docs" in assert_problem(client.get(path), 404, "not-found")["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/tasks", {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}),
        ("TRACE", "/api/tasks", {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}),
        ("POST", f"/api/tasks/{ID}", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
        ("GET", f"/api/tasks/{ID}/complete", {"PATCH", "OPTIONS"}),
        ("PATCH", "/api/tasks/batch", {"POST", "OPTIONS"}),
        ("DELETE", "/api/tasks/changes", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/api/alice/tasks/import", {"POST", "OPTIONS"}),
        ("DELETE", "/health/live", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_method_that_is_not_taken(client: FlaskClient, method: str, path: str, allowed: set[str]) -> None:
    response = client.open(path, method=method)
    assert_problem(response, 405, "method-not-allowed")
    assert set(response.allow) == allowed


def test_errors_carry_cors_headers(client: FlaskClient) -> None:
    for path in ("/api/tasks", "/api/nothing"):
        response = client.get(path, headers={"Origin": ORIGIN})
        assert response.status_code >= 400
        assert response.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert response.headers["Cache-Control"] == "no-store"


HOSTS = ("api.example.com", ".example.org")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("api.example.com", "api.example.com:8000", "example.org", "a.b.example.org")),
        *(
            (host, 400)
            for host in ("evil.example", "api.example.com.evil.example", "xapi.example.com", "badexample.org")
        ),
        *((host, 400) for host in ("10.1.2.3:8000", "localhost", "", "api.example.com@evil.example", "[::1]")),
    ],
)
def test_hosts(database_url: str, host: str, status: int) -> None:
    """A host that isn't listed is refused wherever it is sent; a probe is answered whatever it sends."""
    client = create_app(settings_for(database_url, trusted_hosts=HOSTS, metrics_token="m" * 16)).test_client()
    headers = {"Host": host, "Authorization": f"Bearer {token('alice')}"}
    for path in ("/api/tasks", "/api/docs/", "/api/openapi.json"):
        assert client.get(path, headers=headers).status_code == status
    for path in ("/nothing", "/health", "/health/", "/health/live/x", "/health/ready/../../api/tasks"):
        assert_problem(client.get(path, headers=headers), 404 if status == 200 else 400)
    for path in ("/health/live", "/health/ready"):
        assert client.get(path, headers=headers).get_json()["status"] == "ok"
    assert client.get("/metrics", headers=headers | {"Authorization": f"Bearer {'m' * 16}"}).status_code == 200
    assert_problem(client.get("/metrics", headers=headers), 401)


def test_a_bug_tells_the_log_everything_and_the_client_nothing(
    database_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings_for(database_url))
    monkeypatch.setattr(logging.getLogger("todo_service"), "propagate", True)
    alice = user_of(app, "alice")

    @app.get("/broken")
    def broken() -> Any:
        raise RuntimeError("secret detail")

    response = alice.get("/broken")
    problem = assert_problem(response, 500, "internal-error")
    assert "secret detail" not in response.text
    assert "Traceback" not in response.text
    assert "secret detail" in caplog.text
    assert problem["request_id"] in caplog.text


def test_nothing_of_the_driver_gets_out(app: Flask, alice: User, database_url: str) -> None:
    """A statement that fails in the database for a reason nobody foresaw."""
    from tests.support.wire import Wire

    with Wire(database_url) as wire:
        user = user_of(create_app(settings_for(wire.dsn())), "carol")
        wire.rewrite = lambda sql: sql.replace("FROM tasks", "FROM no_such_table")
        response = user.get("/api/tasks")
    assert_problem(response, 500)
    for word in ("psycopg2", "no_such_table", "SELECT", "relation", "File"):
        assert word not in response.text


@pytest.mark.parametrize("given", ["abc-123", "a" * 128, "0197c9a4.6d2f:7c3e_9b41"])
def test_the_clients_request_id_is_kept(client: FlaskClient, given: str) -> None:
    assert client.get("/api/tasks", headers={"X-Request-ID": given}).json is not None
    assert client.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "\x1b[31m", "é", "a;b"])
def test_a_harmful_request_id_is_replaced(client: FlaskClient, given: str) -> None:
    assert client.get("/health/live", headers={"X-Request-ID": given}).headers["X-Request-ID"] != given


def test_a_fields_name_may_be_anything(alice: User) -> None:
    response = alice.post(
        "/api/tasks", data=b'{"title": "x", "\\ud800": 1}', headers=JSON | {"Prefer": "handling=strict"}
    )
    assert assert_problem(response, 422)["errors"] == [{"field": "\\ud800", "message": "Unknown field."}]


def test_what_stands_beside_the_tasks_is_no_id(app: Flask) -> None:
    rules = [rule.rule.removeprefix("/api/tasks/") for rule in app.url_map.iter_rules() if "/api/tasks/" in rule.rule]
    assert sorted({rule for rule in rules if "<" not in rule}) == sorted(BESIDE)

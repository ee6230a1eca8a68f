"""The log: one line a request, in both forms; nothing secret in it, and nobody can forge a line."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from tests.conftest import SECRET, User, settings_for, user_of
from todo_service import create_app


@pytest.fixture
def restored() -> Iterator[None]:
    """The log's set-up belongs to the process, so put it back for the other tests."""
    logger = logging.getLogger("todo_service")
    before = logger.handlers, logger.level
    yield
    logger.handlers, level = before
    logger.setLevel(level)


def json_app(database_url: str) -> Flask:
    """Made in the test itself, because the log goes to where standard error is at that moment."""
    return create_app(settings_for(database_url, log_format="json"))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_line(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    app = json_app(database_url)
    alice = user_of(app, "alice")
    response = alice.post("/api/tasks?x=1", json={"title": "private title"})
    [line] = lines(capsys)
    assert line["level"] == "INFO"
    assert line["time"].endswith("Z")
    assert (line["method"], line["path"], line["status"]) == ("POST", "/api/tasks", 201)
    assert line["user"] == alice.id
    assert line["request_id"] == response.headers["X-Request-ID"]
    assert line["ms"] >= 0


def test_text_line(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app(settings_for(database_url))
    user_of(app, "alice").get("/api/tasks")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert " INFO todo_service.requests: GET /api/tasks 200 " in text


def test_level(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app(settings_for(database_url, log_level="WARNING"))
    user_of(app, "alice").get("/api/tasks")
    assert capsys.readouterr().err == ""


def test_exception_is_part_of_its_line(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    app = json_app(database_url)

    @app.get("/broken")
    def broken() -> Any:
        raise RuntimeError("inside")

    request_id = app.test_client().get("/broken").headers["X-Request-ID"]
    bug, line = lines(capsys)
    assert "RuntimeError: inside" in bug["exception"]
    assert bug["request_id"] == line["request_id"] == request_id


@pytest.mark.parametrize("path", ["/a%0d%0aINFO forged", "/%1b[31mred", "/%C2%85", "/a%E2%80%A8b"])
def test_nobody_forges_a_line(database_url: str, restored: None, capsys: pytest.CaptureFixture[str], path: str) -> None:
    app = create_app(settings_for(database_url))
    odd = User("x\u2028y\u200b", app.test_client(), user_of(app, "x").token)
    odd.get(path)
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    assert text.strip().isprintable()


def test_nothing_secret_is_logged(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    app = json_app(database_url)
    alice = user_of(app, "alice")
    alice.post("/api/tasks?token=canary-query", json={"title": "canary-title"})
    alice.post("/api/tasks", data="canary-body", content_type="application/json")
    alice.request("GET", "/api/tasks", headers={"Authorization": "Bearer canary.token.value", "Cookie": "a=canary"})
    text = capsys.readouterr().err
    assert text.count("\n") == 3
    for secret in ("canary", SECRET, alice.token):
        assert secret not in text

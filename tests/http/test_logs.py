"""The log: one line a request, in both forms; nothing secret in it, and nobody can forge a line."""

import json
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask

from tests.conftest import SECRET, User, settings_for, user_of
from todo_service import create_app
from todo_service.config import ROOT


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


def test_who_is_refused_is_named(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    """For whoever looks for the one that has gone wild, or tries other users' addresses."""
    app = create_app(settings_for(database_url, log_format="json", rate_limit="1/minute"))
    alice = user_of(app, "alice")
    assert alice.get("/api/somebody/tasks").status_code == 403
    assert alice.get("/api/tasks").status_code == 429
    assert [(line["status"], line["user"]) for line in lines(capsys)] == [(403, alice.id), (429, alice.id)]


def test_text_line(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app(settings_for(database_url))
    user_of(app, "alice").get("/api/tasks")
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert " INFO todo_service.requests: GET /api/tasks 200 " in text


TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED = f"00-{TRACE_ID}-{PARENT_ID}-01"


@pytest.mark.parametrize("given", [TRACED, f"cc-{TRACE_ID}-{PARENT_ID}-00", f"cc-{TRACE_ID}-{PARENT_ID}-00-more"])
def test_trace_is_in_the_line(
    database_url: str, restored: None, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    app = json_app(database_url)
    response = user_of(app, "alice").get("/api/tasks", headers={"traceparent": given})
    [line] = lines(capsys)
    assert (line["trace_id"], line["parent_id"]) == (TRACE_ID, PARENT_ID)
    assert line["request_id"] == response.headers["X-Request-ID"]
    assert not {"traceparent", "traceresponse", "tracestate"} & {name.lower() for name, _ in response.headers}


def test_trace_is_in_the_text(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app(settings_for(database_url))
    user_of(app, "alice").get("/no/such/path", headers={"traceparent": TRACED})
    assert capsys.readouterr().err.endswith(f" trace={TRACE_ID} parent={PARENT_ID}\n")


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        TRACED[:-1],
        TRACED + "-more",
        TRACED + "x",
        TRACED.replace("00-", "ff-", 1),
        TRACED.replace("00-", "cc-", 1) + "more",
        TRACED.upper(),
        TRACED.replace("0af", "0ag"),
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"{TRACED},{TRACED}",
        f"cc-{TRACE_ID}-{PARENT_ID}-00-\u2028",
        TRACED.replace("7", "\u0667"),
    ],
)
def test_malformed_trace_is_ignored(
    database_url: str, restored: None, capsys: pytest.CaptureFixture[str], given: str
) -> None:
    app = json_app(database_url)
    header = {"HTTP_TRACEPARENT": given.encode().decode("latin-1")}
    assert user_of(app, "alice").get("/api/tasks", environ_overrides=header).status_code == 200
    [line] = lines(capsys)
    known = given.startswith("cc-") and given[55:56] == "-"
    assert ("trace_id" in line, "parent_id" in line) == (known, known)
    assert "\u2028" not in line["message"]


def test_the_page_lists_the_fields(database_url: str, restored: None, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/logs.md: which fields there are, in which lines, and the examples' own."""
    page = (ROOT / "docs/logs.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)
    listed = {lines: {name for name, where in rows if where == lines} for lines in {where for _, where in rows}}
    app = json_app(database_url)

    @app.get("/broken")
    def broken() -> Any:
        raise RuntimeError("inside")

    user_of(app, "alice").get("/broken", headers={"traceparent": TRACED})
    bug, line = lines(capsys)
    logging.getLogger("todo_service.test").warning("of no request")
    [other] = lines(capsys)
    assert set(other) == listed["all"]
    assert set(line) == listed["all"] | listed["requests"] | listed["requests, errors"] | listed["traced requests"]
    assert set(bug) == listed["all"] | listed["errors"] | listed["requests, errors"]
    example = json.loads(re.findall(r"^```json\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0])
    assert list(example) == list(line)
    nginx = re.search(r"log_format refusals (.*?);\n", (ROOT / "deploy/nginx.conf").read_text(), re.DOTALL)
    assert nginx
    assert set(re.findall(r"`(\w+)`", page.partition("## nginx")[2])) >= set(re.findall(r'"(\w+)":', nginx[1]))


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

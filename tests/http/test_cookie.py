"""Tokens in a cookie (`API_DIALECT="cookie=…"`): for whom they speak, and that no other site's page gets them to.

A browser sends a cookie to its host whatever the port, so a page on another port stands for one on a sister domain:
of the same site, of another origin.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import BrowserContext

from tests.conftest import ORIGIN, SECRET, User, assert_problem, settings_for, token
from tests.support.browser import chromium, frontend
from tests.support.live import Service
from todo_service import create_app, dialect

NAME = "better-auth.session_data"
COOKIE = f"cookie={NAME}"
# What a page can send without asking first, and no CORS can stop: a form's POST.
FORM = """([url]) => fetch(url, {method: "POST", mode: "no-cors", credentials: "include"}).then(() => null)"""
FETCH = """async ([method, url, body]) => {
  const answer = await fetch(url, {method, credentials: "include", body: body && JSON.stringify(body),
                                   headers: body ? {"Content-Type": "application/json"} : {}})
  return {status: answer.status, body: await answer.json()}
}"""


@pytest.fixture
def app(database_url: str) -> Flask:
    return create_app(settings_for(database_url, dialect=dialect.parse(COOKIE)))


def client_of(app: Flask, user: str) -> Any:
    client = app.test_client()
    client.set_cookie(NAME, token(user), domain="localhost")
    return client


def test_reads_and_changes_by_cookie(app: Flask, alice: User, bob: User) -> None:
    ann, ben = client_of(app, alice.id), client_of(app, bob.id)
    made = ann.post("/api/tasks", json={"title": "by cookie"}, headers={"Origin": ORIGIN})
    assert (made.status_code, made.json["user_id"]) == (201, alice.id)
    assert [task["title"] for task in ann.get("/api/tasks").json] == ["by cookie"]
    assert ben.get("/api/tasks").json == []
    assert ben.get(f"/api/tasks/{made.json['id']}").status_code == 403
    assert ben.get(f"/api/{alice.id}/tasks").status_code == 403
    assert {"Cookie", "Authorization", "Origin"} <= set(ann.get("/api/tasks").vary)


def test_a_header_counts_before_the_cookie(app: Flask, alice: User, bob: User) -> None:
    made = client_of(app, alice.id).post(
        "/api/tasks", json={"title": "x"}, headers={"Authorization": f"Bearer {bob.token}"}
    )
    assert (made.status_code, made.json["user_id"]) == (201, bob.id)
    refused = client_of(app, alice.id).get("/api/tasks", headers={"Authorization": "Bearer wrong.to.ken"})
    assert_problem(refused, 401, "unauthorized")


@pytest.mark.parametrize(
    ("headers", "taken"),
    [
        ({"Origin": ORIGIN}, True),
        ({"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"}, True),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, True),
        ({}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": ORIGIN + ".evil.example"}, False),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Referer": f"{ORIGIN}/tasks"}, False),
    ],
)
def test_whose_pages_may_change(app: Flask, alice: User, headers: dict[str, str], taken: bool) -> None:
    task = alice.create("before")
    client, item = client_of(app, alice.id), f"/api/tasks/{task['id']}"
    changes: list[tuple[str, str, Any]] = [
        ("PATCH", item, {"title": "after"}),
        ("PATCH", f"{item}/complete", None),
        ("POST", "/api/tasks", {"title": "another"}),
        ("POST", f"{item}/restore", None),
        ("DELETE", item, None),
    ]
    for method, path, body in changes:
        response = client.open(path, method=method, json=body, headers=headers)
        if taken:
            assert response.status_code < 300
        else:
            assert_problem(response, 403, "cross-site")
    assert taken or alice.get("/api/tasks").json == [task]


def test_without_the_option_cookies_count_for_nothing(database_url: str) -> None:
    client = client_of(create_app(settings_for(database_url)), "alice")
    assert_problem(client.get("/api/tasks"), 401, "unauthorized")


@pytest.mark.parametrize("value", ["", "not.a.token", "undefined"])
def test_a_bad_cookie(app: Flask, value: str) -> None:
    client = app.test_client()
    client.set_cookie(NAME, value, domain="localhost")
    assert_problem(client.get("/api/tasks"), 401, "unauthorized")


@pytest.mark.parametrize("option", ["cookie=", "cookie=a b", "cookie=a;b", "cookie=a=b", "cookie=é"])
def test_a_bad_name(option: str) -> None:
    with pytest.raises(ValueError, match=r"cookie|option 2"):
        dialect.parse(option)


@pytest.fixture(scope="module")
def browser(database_url: str) -> Iterator[tuple[BrowserContext, Service, str, str]]:
    """A browser that has alice's cookie; the service; a listed origin, and one that is not."""
    with chromium() as browser, frontend() as listed, frontend() as other:
        origins = [f"http://127.0.0.1:{port}" for port in (listed, other)]
        with Service(database_url, SECRET, API_DIALECT=COOKIE, CORS_ORIGINS=origins[0]) as service:
            context = browser.new_context()
            context.add_cookies([{"name": NAME, "value": token("alice@cookie"), "url": service.url}])
            yield context, service, origins[0], origins[1]
            context.close()


def test_in_a_browser(browser: tuple[BrowserContext, Service, str, str]) -> None:
    """The listed page creates, trashes and restores; the other one can't even restore, which is a form's POST."""
    context, service, listed, other = browser
    ours, theirs = context.new_page(), context.new_page()
    ours.goto(listed)
    theirs.goto(other)
    root = f"{service.url}/api/tasks"
    made = ours.evaluate(FETCH, ["POST", root, {"title": "in the browser"}])
    assert (made["status"], made["body"]["user_id"]) == (201, "alice@cookie")
    item = f"{root}/{made['body']['id']}"
    assert ours.evaluate(FETCH, ["DELETE", item, None])["status"] == 200

    theirs.evaluate(FORM, [f"{item}/restore"])
    assert ours.evaluate(FETCH, ["GET", root, None])["body"] == []
    assert service.log.count("/restore 403") == 1
    with pytest.raises(Exception, match="Failed to fetch"):
        theirs.evaluate(FETCH, ["GET", root, None])
    with pytest.raises(Exception, match="Failed to fetch"):
        theirs.evaluate(FETCH, ["DELETE", f"{root}?status=all", None])

    ours.evaluate(FORM, [f"{item}/restore"])
    assert [task["title"] for task in ours.evaluate(FETCH, ["GET", root, None])["body"]] == ["in the browser"]

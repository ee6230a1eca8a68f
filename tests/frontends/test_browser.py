"""What a browser makes of the service: CORS from a frontend's page, and the documentation with Swagger UI."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Route, expect

from tests.conftest import ORIGIN, SECRET, token
from tests.support.browser import chromium, frontend
from tests.support.live import Service
from todo_service.api.transfer import VTODO

NOBODY = "/api/tasks/00000000-0000-7000-8000-000000000000"
EXPOSED = ("etag", "link", "location", "x-request-id")

# As frontends call: with the bearer token and with cookies. An answer that the browser hides is `error`.
FETCH = """async ({url, method, headers, body}) => {
  try {
    const answer = await fetch(url, {method, headers, body, credentials: "include"})
    return {status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.json()}
  } catch (error) {
    return {error: error.name}
  }
}"""


@dataclass
class Frontend:
    """A page on an origin that is listed, one on an origin that is not, and the service they call."""

    listed: Page
    stranger: Page
    service: Service

    def fetch(self, path: str, method: str = "GET", page: Page | None = None, **request: Any) -> dict[str, Any]:
        url = f"{self.service.url}{path}"
        answer: dict[str, Any] = (page or self.listed).evaluate(FETCH, {"url": url, "method": method} | request)
        return answer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(browser: Browser, database_url: str) -> Iterator[Frontend]:
    with frontend() as port:
        origins = f"http://localhost:{port},https://app.example.com"
        with Service(database_url, SECRET, CORS_ORIGINS=origins) as service:
            listed, stranger = browser.new_page(), browser.new_page()
            listed.goto(f"http://localhost:{port}")
            stranger.goto(f"http://127.0.0.1:{port}")
            yield Frontend(listed, stranger, service)
            listed.close()
            stranger.close()


def signed_in(user: str = "alice@page", **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user)}", "Content-Type": "application/json"} | headers


def test_page_creates_and_changes_a_task(pages: Frontend) -> None:
    created = pages.fetch("/api/tasks", "POST", headers=signed_in(), body='{"title": "Buy milk"}')
    assert created["status"] == 201
    assert created["headers"]["location"] == f"/api/tasks/{created['body']['id']}"
    assert created["headers"]["etag"].startswith(f'"{created["body"]["version"]}-')
    asked = pages.service.log.count("OPTIONS /api/tasks 200")
    assert asked
    assert pages.fetch("/api/tasks", "POST", headers=signed_in(), body='{"title": "Buy tea"}')["status"] == 201
    assert pages.service.log.count("OPTIONS /api/tasks 200") == asked, "the browser had to ask again"

    condition = signed_in(**{"If-Match": created["headers"]["etag"]})
    changed = pages.fetch(created["headers"]["location"], "PATCH", headers=condition, body='{"title": "Buy oat milk"}')
    assert changed["status"] == 200
    assert changed["body"]["title"] == "Buy oat milk"
    stale = pages.fetch(created["headers"]["location"], "PATCH", headers=condition, body='{"title": "Buy tea"}')
    assert (stale["status"], stale["body"]["code"]) == (412, "precondition-failed")


def test_page_reads_the_exposed_headers(pages: Frontend) -> None:
    for title in ("Buy milk", "Buy tea"):
        pages.fetch("/api/tasks", "POST", headers=signed_in("bob@page"), body=f'{{"title": "{title}"}}')
    page = pages.fetch("/api/tasks?limit=1", headers=signed_in("bob@page"))
    assert set(EXPOSED) - {"location"} <= set(page["headers"])
    assert 'rel="next"' in page["headers"]["link"]
    link = page["headers"]["link"].partition(">")[0].removeprefix(f"<{pages.service.url}")
    rest = pages.fetch(link, headers=signed_in("bob@page"))
    assert [task["title"] for task in page["body"] + rest["body"]] == ["Buy tea", "Buy milk"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/api/tasks", {}, None, 401),
        ("GET", "/api/tasks", {"Authorization": "Bearer a.b.c"}, None, 401),
        ("GET", NOBODY, signed_in(), None, 404),
        ("GET", "/api/nothing", {}, None, 404),
        ("POST", "/api/tasks", signed_in(), "{", 400),
        ("POST", "/api/tasks", signed_in(), "{}", 422),
        ("PUT", "/api/tasks", signed_in(), "{}", 405),
    ],
)
def test_page_reads_errors(
    pages: Frontend, method: str, path: str, headers: dict[str, str], body: str | None, status: int
) -> None:
    answer = pages.fetch(path, method, headers=headers, body=body)
    assert answer["status"] == status
    assert answer["headers"]["content-type"] == "application/problem+json"
    assert answer["body"]["detail"]
    assert answer["body"]["request_id"] == answer["headers"]["x-request-id"]


@pytest.mark.parametrize(("method", "headers"), [("GET", signed_in()), ("GET", {}), ("POST", signed_in())])
def test_page_of_another_origin_reads_nothing(pages: Frontend, method: str, headers: dict[str, str]) -> None:
    body = '{"title": "Written by a stranger"}' if method == "POST" else None
    assert pages.fetch("/api/tasks", method, pages.stranger, headers=headers, body=body) == {"error": "TypeError"}
    titles = [task["title"] for task in pages.fetch("/api/tasks", headers=signed_in())["body"]]
    assert "Written by a stranger" not in titles


PREFLIGHT = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "authorization,if-match"}


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/", f"{NOBODY}/", "/api/alice/tasks", "/api/alice/tasks/"])
def test_preflight_needs_no_token_and_is_cached(client: FlaskClient, path: str) -> None:
    response = client.options(path, headers={"Origin": ORIGIN} | PREFLIGHT)
    assert response.status_code == 200
    allowed = {name.lower(): value for name, value in response.headers if name.startswith("Access-Control-")}
    assert allowed["access-control-allow-origin"] == ORIGIN
    assert allowed["access-control-allow-credentials"] == "true"
    assert "PATCH" in allowed["access-control-allow-methods"]
    assert allowed["access-control-allow-headers"].lower() == "authorization, if-match"
    assert allowed["access-control-max-age"] == "600"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.test",
        "null",
        f"{ORIGIN}.evil.test",
        f"{ORIGIN}0",
        f"http://evil.test?{ORIGIN}",
        f"http://evil-{ORIGIN.removeprefix('http://')}",
        "http://frontend-test:3000",
        "http://frontend.test",
        "http://frontend.test:3001",
        "https://frontend.test:3000",
        "*",
    ],
)
def test_other_origins_are_told_nothing(client: FlaskClient, origin: str) -> None:
    for headers in ({"Origin": origin}, {"Origin": origin} | PREFLIGHT):
        response = client.open("/api/tasks", method="OPTIONS" if len(headers) > 1 else "GET", headers=headers)
        assert [name for name, _ in response.headers if name.startswith("Access-Control-Allow")] == []


@pytest.fixture
def docs(browser: Browser, pages: Frontend) -> Iterator[Page]:
    """Swagger UI, able to reach the service and nothing else. Complains of whatever goes wrong in it."""
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    complaints: list[str] = []

    def keep_inside(route: Route) -> None:
        if route.request.url.startswith((f"{pages.service.url}/", "data:")):
            route.continue_()
        else:
            complaints.append(f"tried to load {route.request.url}")
            route.abort()

    def complain(said: ConsoleMessage) -> None:
        # The browser says so of each answer that is an error; some tests want one.
        answered = said.text.startswith("Failed to load resource") and "/api/tasks" in said.location["url"]
        if said.type in ("error", "warning") and not answered:
            complaints.append(said.text)

    page.route("**/*", keep_inside)
    page.on("console", complain)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', e => console.error(`CSP: ${e.violatedDirective} ${e.blockedURI}`))"
    )
    page.goto(f"{pages.service.url}/api/docs")
    page.wait_for_selector(".opblock")
    yield page
    page.close()
    assert complaints == []


def authorize(page: Page, user: str) -> None:
    page.click("button.authorize")
    page.fill(".modal-ux input", token(user))
    page.click(".modal-ux button.authorize")
    page.click(".modal-ux button.btn-done")


def opened(page: Page, operation: str) -> Locator:
    block = page.locator(f"[id^=operations-][id$=-{operation}]")
    block.locator(".opblock-summary-control").click()
    return block


def execute(block: Locator) -> tuple[str, str]:
    """Press Execute: the status and the body that Swagger UI shows."""
    block.locator("button.execute").click()
    answer = block.locator(".live-responses-table")
    return answer.locator(".response-col_status").last.inner_text(), answer.locator("pre").first.inner_text()


def test_swagger_ui_works_offline(docs: Page) -> None:
    authorize(docs, "carol@page")
    status, body = execute(opened(docs, "createTask"))
    assert status.startswith("201")
    assert "Buy milk" in body
    status, body = execute(opened(docs, "listTasks"))
    assert status.startswith("200")
    assert "Buy milk" in body


def test_swagger_ui_proposes_a_batch_that_works(docs: Page) -> None:
    authorize(docs, "dave@page")
    status, body = execute(opened(docs, "runBatch"))
    assert status.startswith("200"), body
    assert json.loads(body)["results"]


def test_swagger_ui_speaks_a_dialect(browser: Browser, database_url: str) -> None:
    dialect = (
        "list=tasks one=task done=status:open/shut verbs=toggle paths=/api/todos tags=, priority=P3/P2/P1 sweep=all"
    )
    page = browser.new_page()
    with Service(database_url, SECRET, API_DIALECT=dialect) as service:
        page.goto(f"{service.url}/api/docs")
        page.wait_for_selector(".opblock")
        authorize(page, "dialect@page")
        status, body = execute(opened(page, "createTask"))
        assert status.startswith("201"), body
        task = json.loads(body)["task"]
        assert (task["status"], task["priority"], task["tags"]) == ("open", "P1", "shopping")
        status, body = execute(opened(page, "runBatch"))
        assert status.startswith("200"), body
        status, body = execute(opened(page, "listTasks"))
        assert json.loads(body)["total"] == len(json.loads(body)["tasks"]) == 3
        toggle = opened(page, "toggleTask")
        toggle.locator("tr[data-param-name=id] input").fill(task["id"])
        status, body = execute(toggle)
        assert json.loads(body)["task"]["status"] == "shut", body
    page.close()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tasks.json", '{"version": 1, "tasks": [{"title": "Buy milk"}]}'),
        ("tasks.csv", "title\r\nBuy milk\r\n"),
        ("tasks.ics", VTODO),
    ],
)
def test_swagger_ui_imports_a_file(docs: Page, pages: Frontend, name: str, content: str) -> None:
    kind = {"json": "application/json", "csv": "text/csv", "ics": "text/calendar"}[name.rpartition(".")[2]]
    authorize(docs, f"{name}@page")
    block = opened(docs, "importTasks")
    block.locator(".opblock-section-request-body select").first.select_option(kind)
    picker = block.locator(".opblock-section-request-body input[type=file]")
    picker.set_input_files({"name": name, "mimeType": kind, "buffer": content.encode()})
    status, body = execute(block)
    assert status.startswith("200"), body
    assert json.loads(body) == {"created": 1, "skipped": 0}
    tasks = pages.fetch("/api/tasks", headers=signed_in(f"{name}@page"))["body"]
    assert [task["title"] for task in tasks] == ["Buy milk"]


def test_swagger_ui_fits_a_phone(docs: Page) -> None:
    """Every operation open, with the answer that says what is wrong; a schema, and the form for the token."""

    def assert_it_fits(what: str) -> None:
        for width in (390, 320):
            docs.set_viewport_size({"width": width, "height": 844})
            assert docs.evaluate("document.documentElement.scrollWidth") <= width, what

    ids = [block.get_attribute("id") or "" for block in docs.locator(".opblock").all()]
    assert len(ids) > 10
    for id in ids:
        block = opened(docs, id.rpartition("-")[2])
        if id.endswith(("listTasks", "createTask", "runBatch", "getStats")):
            assert execute(block)[0].startswith("401")
        assert_it_fits(id)
    docs.click(".models-control")
    docs.click(".models .json-schema-2020-12-accordion >> nth=0")
    docs.click("button.authorize")
    assert_it_fits("schema and token")


def test_the_next_user_of_a_browser_sees_their_own(pages: Frontend) -> None:
    """The browser asks with the ETags of what it has stored for the user before, whatever `Vary` says."""
    users, id = ("first@browser", "second@browser"), str(uuid.uuid4())
    for user in users:
        file = json.dumps([{"id": id, "title": f"of {user}"}])
        assert pages.fetch("/api/tasks/import", "POST", headers=signed_in(user), body=file)["body"]["created"] == 1
    for user in users * 2:
        [task] = pages.fetch("/api/tasks", headers=signed_in(user))["body"]
        assert (task["user_id"], task["title"], task["version"]) == (user, f"of {user}", 1)
        assert pages.fetch(f"/api/tasks/{id}", headers=signed_in(user))["body"] == task
    # Whoever asks again is answered out of the browser's store, which has to be asked about.
    revalidated = pages.service.log.count("GET /api/tasks 304")
    assert pages.fetch("/api/tasks", headers=signed_in(users[1]))["body"] == [task]
    assert pages.service.log.count("GET /api/tasks 304") == revalidated + 1


def test_the_next_user_of_a_browser_may_have_nothing(pages: Frontend) -> None:
    pages.fetch("/api/tasks", "POST", headers=signed_in("third@browser"), body='{"title": "of third@browser"}')
    for user in ("third@browser", "fourth@browser", "third@browser"):
        titles = [task["title"] for task in pages.fetch("/api/tasks?limit=7", headers=signed_in(user))["body"]]
        assert titles == (["of third@browser"] if user == "third@browser" else [])


def test_the_next_user_of_swagger_ui_sees_their_own(browser: Browser, pages: Frontend) -> None:
    """On a page of its own: where requests are looked at, as above, Chromium stores no answers."""
    users = ("first@docs", "second@docs")
    for user in users:
        pages.fetch("/api/tasks", "POST", headers=signed_in(user), body=f'{{"title": "of {user}"}}')
    page = browser.new_page()
    page.goto(f"{pages.service.url}/api/docs")
    block = page.locator("#operations-tasks-listTasks")
    block.locator(".opblock-summary-control").click()
    for user in users * 2:
        authorize(page, user)
        block.locator("button.execute").click()
        # The answer before is shown until this one is there.
        expect(block.locator(".live-responses-table pre").first).to_contain_text(f"of {user}")
        page.click("button.authorize")
        page.click(".modal-ux button:has-text('Logout')")
        page.click(".modal-ux button.btn-done")
    page.close()

"""What todobackend.com asks of a backend, asked by a page on another origin, with a bearer token on every request.

Its sixteen specs, told in words of our own: the service with the dialect that `docs/dialects.md` gives for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from secrets import token_hex
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.conftest import SECRET, token
from tests.support.browser import chromium, frontend
from tests.support.live import Service

DIALECT = "names=position:order url=url sweep=all"
FETCH = """async ([method, url, token, body]) => {
  const headers = {Authorization: `Bearer ${token}`}
  if (body !== null) headers["Content-Type"] = "application/json"
  const answer = await fetch(url, {method, headers, body: body === null ? undefined : JSON.stringify(body)})
  return {status: answer.status, body: await answer.json(), type: answer.type}
}"""


@dataclass
class Backend:
    """The service as the page's scripts see it; `root` is the only address they know."""

    page: Page
    root: str
    token: str

    def fetch(self, method: str, url: str, body: Any = None) -> dict[str, Any]:
        answer: dict[str, Any] = self.page.evaluate(FETCH, [method, url, self.token, body])
        assert answer["type"] == "cors"
        return answer

    def get(self, url: str) -> Any:
        answer = self.fetch("GET", url)
        assert answer["status"] == 200
        return answer["body"]

    def add(self, title: str = "Walk the dog", **fields: Any) -> dict[str, Any]:
        answer = self.fetch("POST", self.root, {"title": title} | fields)
        assert answer["status"] == 201
        todo: dict[str, Any] = answer["body"]
        return todo

    def patch(self, todo: dict[str, Any], **fields: Any) -> dict[str, Any]:
        answer = self.fetch("PATCH", todo["url"], fields)
        assert answer["status"] == 200
        changed: dict[str, Any] = answer["body"]
        return changed


@pytest.fixture(scope="module")
def pages(database_url: str) -> Iterator[tuple[Page, Service]]:
    with chromium() as browser, frontend() as port:
        origins = f"http://localhost:{port}"
        with Service(database_url, SECRET, API_DIALECT=DIALECT, CORS_ORIGINS=origins) as service:
            page = browser.new_page()
            page.goto(f"http://localhost:{port}")
            yield page, service


@pytest.fixture
def backend(pages: tuple[Page, Service]) -> Backend:
    page, service = pages
    return Backend(page, f"{service.url}/api/tasks", token(f"todo-{token_hex(6)}"))


def test_the_root_can_be_read_from_another_origin(backend: Backend) -> None:
    assert backend.fetch("GET", backend.root)["status"] == 200


def test_a_post_to_the_root_answers_with_the_todo(backend: Backend) -> None:
    assert backend.fetch("POST", backend.root, {"title": "Walk the dog"})["body"]["title"] == "Walk the dog"


def test_a_delete_of_the_root_answers(backend: Backend) -> None:
    assert backend.fetch("DELETE", backend.root)["status"] == 200


def test_after_a_delete_of_the_root_there_is_nothing(backend: Backend) -> None:
    backend.add()
    backend.fetch("DELETE", backend.root)
    assert backend.get(backend.root) == []


def test_a_new_todo_is_in_the_list(backend: Backend) -> None:
    backend.add("Walk the dog")
    assert [todo["title"] for todo in backend.get(backend.root)] == ["Walk the dog"]


def test_a_new_todo_is_not_completed(backend: Backend) -> None:
    backend.add()
    assert [todo["completed"] for todo in backend.get(backend.root)] == [False]


def test_a_new_todo_has_an_address(backend: Backend) -> None:
    assert isinstance(backend.add()["url"], str)


def test_the_address_leads_to_the_new_todo(backend: Backend) -> None:
    todo = backend.add("Walk the dog")
    assert backend.get(todo["url"])["title"] == "Walk the dog"


def test_an_address_out_of_the_list_leads_to_a_todo(backend: Backend) -> None:
    backend.add("Wash the dog")
    [todo] = backend.get(backend.root)
    assert backend.get(todo["url"]) == todo


def test_a_title_is_changed_at_the_address(backend: Backend) -> None:
    assert backend.patch(backend.add("Walk the dog"), title="Wash the dog")["title"] == "Wash the dog"


def test_it_is_completed_at_the_address(backend: Backend) -> None:
    assert backend.patch(backend.add(), completed=True)["completed"] is True


def test_changes_are_there_when_asked_again(backend: Backend) -> None:
    todo = backend.patch(backend.add("Walk the dog"), title="Wash the dog", completed=True)
    assert backend.get(todo["url"]) == todo
    assert backend.get(backend.root) == [todo]


def test_it_is_deleted_at_the_address(backend: Backend) -> None:
    gone, kept = backend.add("Walk the dog"), backend.add("Feed the cat")
    assert backend.fetch("DELETE", gone["url"])["status"] == 200
    assert [todo["title"] for todo in backend.get(backend.root)] == [kept["title"]]


def test_a_todo_is_made_with_an_order(backend: Backend) -> None:
    assert backend.add(order=523)["order"] == 523


def test_an_order_is_changed(backend: Backend) -> None:
    assert backend.patch(backend.add(order=10), order=95)["order"] == 95


def test_an_order_stays(backend: Backend) -> None:
    todo = backend.add(order=10)
    backend.patch(todo, order=95)
    assert backend.get(todo["url"])["order"] == 95
    assert [other["order"] for other in backend.get(backend.root)] == [95]


def test_without_a_token_nothing_is_told(backend: Backend) -> None:
    backend.token = "undefined"
    assert backend.fetch("GET", backend.root)["status"] == 401

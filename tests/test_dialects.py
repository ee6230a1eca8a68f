"""Frontends that say things in their own way: each option of API_DIALECT and combinations of them.

`conversations.txt` beside this module has what they send and get; what is said of dialects elsewhere is tested here.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask

from tests.conftest import User, again, settings_for, user_of
from todo_service import create_app
from todo_service.config import SettingsError
from todo_service.dialect import OPTIONS, Dialect, parse

FULL = (
    "list=tasks one=task done=is_completed verbs=toggle,status paths=/api/todos,/api/v1/todos tags=, error=error "
    "none=NONE title=description priority=P3/P2/P1 names=position:order,due_date:dueDate url=url sweep=all"
)
ACTIONS = {"list", "create", "update", "complete", "reopen", "delete", "invalid", "stranger"}


class Exchange(NamedTuple):
    action: str
    method: str
    path: str
    body: str
    status: int
    answer: Any


def conversations() -> Iterator[tuple[str, list[Exchange]]]:
    text = Path(__file__).with_name("conversations.txt").read_text()
    request = re.compile(r"^(\w+) +([A-Z]+) (\S+)(?: (.+))?\n +(\d{3}) (.+)$", flags=re.MULTILINE)
    for section in text.split("=== ")[1:]:
        dialect, _, rest = section.partition("\n")
        found = [
            Exchange(action, method, path, body, int(status), json.loads(answer))
            for action, method, path, body, status, answer in request.findall(rest)
        ]
        assert len(found) * 2 == len(rest.strip().splitlines()), dialect
        yield dialect, found


CONVERSATIONS = dict(conversations())


@pytest.fixture(scope="module")
def speaking(database_url: str) -> Any:
    """Makes the app of a dialect; all of them live in this one process."""

    @cache
    def make(dialect: str) -> Flask:
        return create_app(settings_for(database_url, dialect=parse(dialect)))

    return make


def like(expected: Any, found: Any) -> bool:
    """Whether an answer is as expected, which names some members of its objects."""
    match expected:
        case dict():
            return isinstance(found, dict) and all(
                name in found and like(value, found[name]) for name, value in expected.items()
            )
        case list():
            return isinstance(found, list) and len(found) == len(expected) and all(map(like, expected, found))
        case str():
            return isinstance(found, str) and fnmatchcase(found, expected)
    return isinstance(found, bool) is isinstance(expected, bool) and bool(found == expected)


def filled(text: str, alice: User, id: str) -> str:
    return text.replace("$alice", alice.id).replace("$id", id)


def test_every_option_has_a_conversation_and_so_have_combinations() -> None:
    single = [dialect for dialect in CONVERSATIONS if " " not in dialect]
    assert {dialect.partition("=")[0] for dialect in single} == set(OPTIONS)
    assert len(CONVERSATIONS) - len(single) >= 8


@pytest.mark.parametrize(("dialect", "exchanges"), CONVERSATIONS.items(), ids=CONVERSATIONS)
def test_conversation(speaking: Any, dialect: str, exchanges: list[Exchange]) -> None:
    assert {exchange.action for exchange in exchanges} >= ACTIONS
    app = speaking(dialect)
    alice, bob, id = user_of(app, "alice"), user_of(app, "bob"), ""
    for exchange in exchanges:
        speaker = bob if exchange.action == "stranger" else alice
        sent = {"data": exchange.body, "content_type": "application/json"} if exchange.body else {}
        answer = speaker.request(exchange.method, filled(exchange.path, alice, id), **sent)
        body = answer.get_json(force=True)
        assert answer.status_code == exchange.status, (exchange, body)
        if exchange.status == 201:
            id = answer.headers["Location"].rpartition("/")[2]
            assert answer.headers["Location"] == f"{filled(exchange.path, alice, id).rstrip('/')}/{id}"
        expected = json.loads(filled(json.dumps(exchange.answer), alice, id))
        assert like(expected, body), (exchange, body)

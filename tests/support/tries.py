"""Requests that may fail: what kind of failure it was, whether they may have been done all the same, and repetition."""

import re
import time
from typing import Any, NamedTuple

from tests.support.live import Answer, Connection, NotSentError, UnansweredError
from todo_service.errors import PROBLEM_JSON

RETRY_SECONDS = 0.2
PATIENCE_SECONDS = 40
IN_DOUBT = re.compile("was lost|did not answer in time")
# What a repetition may be told: that an earlier try of it was done.
DONE_BEFORE = (404, 412)
PROXY = ("502", "504")


class Attempt(NamedTuple):
    """One request: whose, and when it was over.

    `error` is empty, or its kind: the status, or `refused`, or `reset` for a new connection that was lost, or `dropped`
    for one on which an answer had come before.
    """

    name: str
    end: float
    error: str


class BrokenError(Exception):
    """What no promise allows for."""


def expect(true: bool, what: str) -> None:
    if not true:
        raise BrokenError(what)


class Tries:
    """A user who makes requests on one connection, and notes in `attempts`, as `name`, how each of them ended."""

    def __init__(self, url: str, bearer: str, name: str, attempts: list[Attempt]) -> None:
        self._name = name
        self.connection = Connection(url, bearer)
        self._attempts = attempts

    def once(
        self, method: str, path: str, body: Any = None, in_doubt: bool = False, **headers: str
    ) -> tuple[Answer | None, bool]:
        """The answer, unless it is an error; and whether the request may have been done all the same.

        `in_doubt`: so may an earlier try of it. Then it can be told that this is so, or that it is still under way.
        """
        answer, error, doubt = None, "", False
        try:
            answer = self.connection.request(method, path, body, **headers)
        except NotSentError:
            error = "refused"
        except UnansweredError as unanswered:
            error, doubt = "dropped" if unanswered.kept else "reset", True
        else:
            # A proxy may have repeated it, as it may any that is idempotent (RFC 9110, section 9.2.2).
            error = kind(answer, in_doubt or method == "DELETE")
            # A proxy's own: the service was lost before it answered.
            doubt = error in PROXY or (error == "503" and bool(IN_DOUBT.search(answer.json["detail"])))
        self._attempts.append(Attempt(self._name, time.monotonic(), error))
        return None if error else answer, doubt

    def insist(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[Answer, int]:
        """Repeat until there is an answer; and how many earlier tries may have been done."""
        patience, in_doubt = time.monotonic() + PATIENCE_SECONDS, 0
        while True:
            answer, doubt = self.once(method, path, body, in_doubt > 0, **headers)
            if answer:
                return answer, in_doubt
            in_doubt += doubt
            expect(time.monotonic() < patience, f"{method} {path}: no answer within {PATIENCE_SECONDS} s")
            time.sleep(RETRY_SECONDS)


def kind(answer: Answer, in_doubt: bool) -> str:
    """Which kind of error it is, if any; it is an odd one if that is not how the service reports it."""
    if answer.status < 300 or (in_doubt and answer.status in DONE_BEFORE):
        return ""
    if answer.headers["Content-Type"] != PROBLEM_JSON:
        return f"odd {answer.status}"
    if (answer.status in (502, 503, 504) and answer.headers["Retry-After"]) or (answer.status == 409 and in_doubt):
        return str(answer.status)
    return f"odd {answer.status}"

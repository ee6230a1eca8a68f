"""What the document can't say of this service, for `test_schemathesis.py`: told to Schemathesis, which imports this.

A schema says what a value looks like. Whether a time zone exists, whether a key was used before or a task has changed
since, it can't say; such values are made here, or the one error that they may give is known here by its text.
"""

import os
import uuid
from typing import Any
from zoneinfo import available_timezones

import schemathesis
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import Failure

RESTORE = "POST /api/tasks/{id}/restore"
# Errors that depend on what the service holds, not on the request alone, by how they end.
STATE = (
    "since: Not a token of this user's; start again without one.",
    "since: Not from this list; start again without one.",
    "cursor: Not from this list; start again without one.",
    # The one that the task has, where it is changed.
    "recurrence: Needs a due_date.",
)
restored: set[str] = set()

lines = st.lists(st.text(alphabet=st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=50))
schemathesis.openapi.format("time-zone", st.sampled_from(sorted(available_timezones() - {"localtime"})))
schemathesis.openapi.format(
    "rrule",
    st.sampled_from(["daily", "weekly", "monthly", "yearly"])
    | st.builds("FREQ={};INTERVAL={}".format, st.sampled_from(["DAILY", "MONTHLY"]), st.integers(1, 999)),
)
schemathesis.openapi.format("csv", lines.map(lambda titles: "\r\n".join(["title", *titles, ""])))
schemathesis.openapi.format(
    "ics",
    lines.map(
        lambda titles: "\r\n".join(
            [
                "BEGIN:VCALENDAR",
                *(f"BEGIN:VTODO\r\nSUMMARY:{title}\r\nEND:VTODO" for title in titles),
                "END:VCALENDAR",
                "",
            ]
        )
    ),
)


@schemathesis.hook
def before_load_schema(_: HookContext, document: dict[str, Any]) -> None:
    """Name the forms of files; and split types, where the format beside a list of them would be forgotten.

    An id that is none is ignored where a task is created.
    """
    document["components"]["schemas"]["TaskCreate"]["properties"]["id"] = {}
    files = document["paths"]["/api/tasks/import"]["post"]["requestBody"]["content"]
    files["text/csv"]["schema"]["format"] = "csv"
    files["text/calendar"]["schema"]["format"] = "ics"
    split_types(document)


def split_types(node: Any) -> None:
    for inner in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        split_types(inner)
    if isinstance(node, dict) and node.get("type") == ["string", "null"] and "format" in node:
        del node["type"]
        node["anyOf"] = [{"type": "string", "format": node.pop("format")}, {"type": "null"}]


@schemathesis.hook
def before_call(_: HookContext, case: Case[Any], __: dict[str, Any]) -> None:
    """Make a valid request one that succeeds: a key of its own, any version, unknown names ignored."""
    if not case.meta or not case.meta.generation.mode.is_positive:
        return
    case.headers.pop("Prefer", None)
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    if "If-Match" in case.headers:
        case.headers["If-Match"] = "*"
    if isinstance(case.body, dict) and case.body.get("recurrence"):
        case.body["due_date"] = case.body.get("due_date") or "2026-12-31"


@schemathesis.hook
def after_call(_: HookContext, case: Case[Any], response: Response) -> None:
    if case.operation.label == RESTORE and response.status_code == 200:
        restored.add(case.path_parameters["id"])


@schemathesis.hook
def filter_failure(_: HookContext, failure: Failure, case: Case[Any], response: Response) -> bool:
    """Whether it is one. A deleted task that was brought back from the trash may be there."""
    match failure.code:
        case "ST202" if response.status_code == 422:
            errors = [f"{error['field']}: {error['message']}" for error in response.json()["errors"]]
            return not all(error.endswith(STATE) for error in errors)
        case "ST301":
            return case.path_parameters["id"] not in restored
    return True


@schemathesis.check
def strangers_are_refused(_: CheckContext, response: Response, case: Case[Any]) -> None:
    """Who has no valid token gets 401 from every operation, however they ask."""
    if "STRANGERS" in os.environ and case.method.lower() == case.operation.method.lower():
        assert response.status_code == 401, response.status_code

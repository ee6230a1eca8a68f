"""The addresses of a dialect: `verbs` and `paths`, beside those of the contract; served, and documented."""

from copy import deepcopy
from typing import Any

import orjson
from flask import Flask

from ..config import SettingsError
from ..dialect import Dialect

TASKS = "/api/tasks"
FAMILIES = (TASKS, "/api/<user_id>/tasks")
# By which a task is completed at the addresses of a dialect.
VERBS = {"POST", "PUT", "PATCH"}
KNOWN = {"complete": {"PATCH"}}


def add_routes(app: Flask, dialect: Dialect) -> None:
    """Serve the dialect's addresses, in both families. Raises SettingsError where one is taken."""
    taken = {rule.rule for rule in app.url_map.iter_rules()}
    ours = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith(FAMILIES)]
    known = [(rule.rule, rule.endpoint, (rule.methods or set()) - {"HEAD", "OPTIONS"}) for rule in ours]
    turning = [(rule.removesuffix("complete"), end) for rule, end, _ in known if rule.endswith("/complete")]
    verbs = [(rule + verb, end, VERBS - KNOWN.get(verb, set())) for rule, end in turning for verb in dialect.verbs]
    paths = [(rehomed(rule, path), end, methods) for path in dialect.paths for rule, end, methods in known + verbs]
    for option, wanted in (("verbs", verbs), ("paths", paths)):
        if any(rule in taken and not rule.endswith("/complete") for rule, _, _ in wanted):
            raise SettingsError({"API_DIALECT": f"{option}: names an address that there is already."})
        for rule, endpoint, methods in wanted:
            app.add_url_rule(rule, endpoint, methods=methods)


def rehomed(rule: str, path: str) -> str:
    """A rule of either family, with `path` in the place of `/api/tasks`."""
    head, _, last = path.rpartition("/")
    own, other = FAMILIES
    return rule.replace(other, f"{head}/<user_id>/{last}") if rule.startswith(other) else rule.replace(own, path, 1)


def document_verbs(paths: dict[str, Any], dialect: Dialect) -> None:
    """Add the other addresses at which a task is completed to the `paths` of the document."""
    patch = paths[f"{TASKS}/{{id}}/complete"]["patch"]
    for verb in dialect.verbs:
        there = paths.setdefault(f"{TASKS}/{{id}}/{verb}", {})
        for method in sorted({method.lower() for method in VERBS} - there.keys()):
            words = [*verb.split("-"), "task"] if method == "patch" else [method, *verb.split("-"), "task"]
            there[method] = deepcopy(patch) | {"operationId": words[0] + "".join(map(str.title, words[1:]))}


def moved(document: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The document with the first of the dialect's paths as the address of all."""
    if not dialect.paths:
        return document
    found: dict[str, Any] = orjson.loads(orjson.dumps(document).replace(TASKS.encode(), dialect.paths[0].encode()))
    return found


def told(dialect: Dialect) -> dict[str, str]:
    """What the document says of addresses that it doesn't list."""
    first, *others = [*dialect.paths, TASKS]
    head, _, last = first.rpartition("/")
    besides = f"; and under {', '.join(f'`{path}`' for path in others)}" if others else ""
    return {"tasks": first, "with_user": f"{head}/{{user_id}}/{last}", "besides": besides}

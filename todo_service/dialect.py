"""The setting API_DIALECT, `list=tasks done=is_completed …`, as a frozen value: how a frontend says things. Pure.

What becomes of the options is elsewhere: in `schemas/` all that is in bodies and parameters (`spoken.py`, `words.py`,
`dialect.py`), in `api/addresses.py` the addresses, in `errors.py` the errors, in `http/cookie.py` the cookie, in
`http/conditions.py` the entity tags. Nothing below those knows of any dialect.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
WORD = re.compile(r"[^\s/:,]{1,64}")
VERB = re.compile(r"[a-z][a-z-]{0,31}")
PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
COOKIE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")  # RFC 6265, section 4.1.1
SEPARATOR = re.compile(r"[^\w\s\"\\]{1,3}")
TAKEN_VERBS = {"restore", "move", "checklist"}
TAKEN_PATH = re.compile(r"/api|/docs|/api/openapi\.json|/(api/docs|api/tasks|health|metrics)(/.*)?")
A_NAME = "must be a name: letters, digits and _, no digit first."


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What the options say; None, or nothing in it: as the contract has it.

    `many` and `one`: the names that a list and a task are wrapped in (`list=`, `one=`). `done`: another name of
    `completed`, which has one of two `words`, for no and for yes, where there are any. `names`: (field, other name).
    """

    many: str | None = None
    one: str | None = None
    done: str | None = None
    words: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    tags: str | None = None
    error: str | None = None
    none: str | None = None
    title: str | None = None
    priority: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    url: str | None = None
    sweep: str | None = None
    cookie: str | None = None

    @property
    def mark(self) -> str:
        """What tells this dialect's entity tags from all others'; nothing where the dialect is blank."""
        said = [f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if getattr(self, field.name)]
        return f".{hashlib.sha256(' '.join(said).encode()).hexdigest()[:8]}" if said else ""


def parse(text: str) -> Dialect:
    """The dialect that `text` names. Raises ValueError, which names the option and never its value."""
    found: dict[str, Any] = {}
    seen: set[str] = set()
    for number, part in enumerate(text.split(), 1):
        option, _, value = part.partition("=")
        if option not in OPTIONS:
            raise ValueError(f"option {number} is none of {', '.join(OPTIONS)}.")
        if option in seen:
            raise ValueError(f"{option}: is there twice.")
        seen.add(option)
        try:
            found |= OPTIONS[option](value)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None
    dialect = Dialect(**found)
    new = [name for name in (dialect.done, dialect.url, *(new for _, new in dialect.names)) if name]
    if not distinct(new):
        raise ValueError(f"{'names' if dialect.names else 'url'}: gives a name that another option gives as well.")
    return dialect


def distinct(words: Iterable[str]) -> bool:
    folded = [word.casefold() for word in words]
    return len(set(folded)) == len(folded)


def all_match(pattern: re.Pattern[str], values: Iterable[str], must: str) -> tuple[str, ...]:
    found = tuple(values)
    if not all(map(pattern.fullmatch, found)) or not distinct(found):
        raise ValueError(must)
    return found


def one_of(field: str, pattern: re.Pattern[str], must: str) -> Callable[[str], dict[str, Any]]:
    return lambda value: {field: all_match(pattern, [value], must)[0]}


def read_list(value: str) -> dict[str, Any]:
    if value == "total":
        raise ValueError("must not be `total`, which stands beside it.")
    return one_of("many", NAME, A_NAME)(value)


def read_done(value: str) -> dict[str, Any]:
    name, colon, words = value.partition(":")
    must = "must look like is_completed or status:pending/completed."
    found = all_match(WORD, words.split("/"), must) if colon else ()
    if len(found) not in (0, 2):
        raise ValueError(must)
    return one_of("done", NAME, must)(name) | {"words": found}


def read_verbs(value: str) -> dict[str, Any]:
    verbs = all_match(VERB, value.split(","), "must look like toggle,status.")
    if TAKEN_VERBS.intersection(verbs):
        raise ValueError("names an address that there is already.")
    return {"verbs": verbs}


def read_paths(value: str) -> dict[str, Any]:
    paths = all_match(PATH, value.split(","), "must look like /api/todos,/api/v1/todos.")
    if any(TAKEN_PATH.fullmatch(path) for path in paths):
        raise ValueError("names an address that there is already.")
    return {"paths": paths}


def read_priority(value: str) -> dict[str, Any]:
    must = "must be three words, for low, medium and high: P3/P2/P1."
    words = all_match(WORD, value.split("/"), must)
    if len(words) != 3:
        raise ValueError(must)
    return {"priority": words}


def read_names(value: str) -> dict[str, Any]:
    must = "must look like position:order,due_date:dueDate, each new name once."
    pairs = tuple((own, new) for own, _, new in (pair.partition(":") for pair in value.split(",")))
    all_match(NAME, [new for _, new in pairs], must)
    if not all(NAME.fullmatch(own) for own, _ in pairs):
        raise ValueError(must)
    return {"names": pairs}


OPTIONS: dict[str, Callable[[str], dict[str, Any]]] = {
    "list": read_list,
    "one": one_of("one", NAME, A_NAME),
    "done": read_done,
    "verbs": read_verbs,
    "paths": read_paths,
    "tags": one_of("tags", SEPARATOR, "must be the character between two tags, such as a comma."),
    "error": one_of("error", NAME, A_NAME),
    "none": one_of("none", WORD, "must be a word."),
    "title": one_of("title", re.compile("description"), "must be description."),
    "priority": read_priority,
    "names": read_names,
    "url": one_of("url", NAME, A_NAME),
    "sweep": one_of("sweep", re.compile("all|completed"), "must be all or completed."),
    "cookie": one_of("cookie", COOKIE, "must be a cookie's name, such as better-auth.session_data."),
}

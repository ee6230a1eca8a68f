"""A task as it stands in a file, whatever the format: what is read from files, into what is stored. Pure.

A file's readers (`json.py`, `csv.py`, `ics.py`) give entries: where in the file, and the fields in the form of JSON.
What the service sets itself is restored from a file (times, trash, order), so that an export loses nothing; but whose a
task is and its version are never a file's to say.

The id is what makes a task the same, so a file read twice makes nothing twice. An entry without one gets an id made of
the user and all that the entry says (and of a number, where a file says the same twice): the same file gives the same
ids again, and a file that has grown only what is new in it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

import marshmallow as ma
import orjson
import uuid_utils

from ..db.models import MAX_ITEMS, QUOTA
from ..errors import Invalid
from ..http.parsing import flat
from ..schemas.fields import MAX_LISTED_TAGS, canonical_id
from ..schemas.spoken import Spoken
from ..schemas.transfer import PLACE, ImportTask
from ..tasks.columns import DEFAULTS, columns
from ..tasks.recurrence.rules import MAX_LENGTH

MAX_ENTRIES = QUOTA
MAX_ERRORS = 100
# What a whole file may have: fields with a value, ten for each of as many tasks as there may be, an item and four tags
# each counted as a field; and characters of different rules, some 25,000 rules of a common length.
MAX_FIELDS = 10 * QUOTA
MAX_RULES = 1_000_000
NAMESPACE = uuid_utils.UUID("6f0a3c52-1c7e-5b7e-9a53-2f5d1c0e8b41")
# Known, so no reason for a strict answer, and not applied.
NEVER_APPLIED = ("user_id", "version", "checklist_done", "checklist_total")
TIMES = ("created_at", "updated_at", "completed_at", "deleted_at")


# Of the formats only JSON has series; in others, a column of that name is the file's own.
WHOLE = ImportTask()
PLAIN = ImportTask(exclude=PLACE)


class Budget:
    """How much work a file may make, counted, so that it is refused or not on every machine alike.

    `rules`, by their text, are those that were found good: each is looked at once.
    """

    def __init__(self) -> None:
        self.fields, self.characters = MAX_FIELDS, MAX_RULES
        self.rules: dict[str, str] = {}

    def take(self, place: str, entry: Any) -> None:
        """Count an entry. Raises Invalid, naming it, where it is too much."""
        if not isinstance(entry, dict):
            return
        tags, items, rule = entry.get("tags"), entry.get("checklist"), entry.get("recurrence")
        self.fields -= len(entry) - list(entry.values()).count(None)
        self.fields -= min(len(tags), MAX_LISTED_TAGS) // 4 if isinstance(tags, list) else 0
        self.fields -= min(len(items), MAX_ITEMS) if isinstance(items, list) else 0
        if self.fields < 0:
            problem = f"The tasks of a file may have at most {MAX_FIELDS} fields with a value; four tags count as one."
            raise Invalid([(place, problem)])
        if isinstance(rule, str) and rule not in self.rules:
            self.characters -= min(len(rule), MAX_LENGTH)
            if self.characters < 0:
                raise Invalid([(place, f"The different rules of a file may have at most {MAX_RULES} characters.")])


def rows(
    owner: str, entries: Iterable[tuple[str, Any]], now: datetime, strict: bool = False, shape: ma.Schema = PLAIN
) -> list[dict[str, Any]]:
    """The entries as columns of `tasks`, each id once, `position` None where the file has none.

    Raises Invalid with the places of up to MAX_ERRORS entries that can't be tasks, and for more than there may be.
    """
    budget = Budget()
    found: dict[str, dict[str, Any]] = {}
    errors: list[tuple[str, str]] = []
    seen: Counter[str] = Counter()
    spoken = shape if isinstance(shape, Spoken) else None
    for number, (place, said) in enumerate(entries):
        if number == MAX_ENTRIES:
            raise Invalid([(place, f"A file may have at most {MAX_ENTRIES} tasks.")])
        entry = spoken.own(said) if spoken and isinstance(said, dict) else said
        budget.take(place, entry)
        try:
            task = load(entry, strict, budget.rules, shape)
        except ma.ValidationError as error:
            if spoken:
                error.messages = spoken.named(error.messages_dict, said)
            errors += [(place, message) for message in sentences(error)]
            if len(errors) >= MAX_ERRORS:
                break
            continue
        if not task.get("id"):
            said = orjson.dumps(task, option=orjson.OPT_SORT_KEYS).decode()
            seen[said] += 1
            task["id"] = made_id(owner, f"{seen[said]} {said}")
        found.setdefault(task["id"], stored(task, now))
    if errors:
        raise Invalid(errors[:MAX_ERRORS])
    return list(found.values())


def identity(owner: str, name: str) -> str:
    """The id of the task that a calendar calls `name`, which may be any text; a task exported from here has its id."""
    try:
        return canonical_id(name)
    except ValueError:
        return made_id(owner, name)


def made_id(owner: str, name: str) -> str:
    """The user is in it, so that two users' are different, and nobody can guess one without knowing whose it is."""
    return str(uuid_utils.uuid5(NAMESPACE, f"{len(owner)} {owner} {name}"))


def load(entry: Any, strict: bool, rules: dict[str, str], shape: ma.Schema) -> dict[str, Any]:
    """An entry's fields, checked. `rules`, by their text, are those known to be good. Raises ValidationError."""
    if isinstance(entry, dict):
        rule, known_fields = entry.get("recurrence"), shape.load_fields
        known = rules.get(rule) if isinstance(rule, str) else None
        if not entry.keys() <= known_fields.keys():
            never = (*NEVER_APPLIED, shape.dialect.url if isinstance(shape, Spoken) else None)
            unknown = [name for name in entry if name not in known_fields and name not in never]
            entry = {
                name: entry[name]
                for name in (*known_fields, *(unknown[:MAX_ERRORS] if strict else ()))
                if name in entry
            }
        task = loaded(entry | {"recurrence": None} if known else entry, shape)
        if known:
            task["recurrence"] = known
        elif rule is not None:
            rules[rule] = task["recurrence"]
    else:
        task = shape.load(entry)
    if task.get("recurrence") is not None and task.get("due_date") is None:
        raise ma.ValidationError({"recurrence": ["Needs a due_date."]})
    return task


def loaded(entry: dict[str, Any], shape: ma.Schema) -> dict[str, Any]:
    """What `shape` makes of an entry: by its fields alone, which takes a third of the time, if all of it is good."""
    try:
        if "title" in entry:
            return {name: shape.load_fields[name].deserialize(value, name, entry) for name, value in entry.items()}
    except (KeyError, ma.ValidationError):
        pass
    task: dict[str, Any] = shape.load(entry)
    return task


def stored(task: dict[str, Any], now: datetime) -> dict[str, Any]:
    """A checked entry as columns. A time to come is taken for `now`: trash from the future would never be purged."""
    times = {name: min(task[name], now) for name in TIMES if task.get(name)}
    created = times.get("created_at") or times.get("updated_at") or now
    updated = times.get("updated_at") or created
    completed = task.get("completed", "completed_at" in times)
    values = columns(DEFAULTS | {name: value for name, value in task.items() if name not in (*TIMES, *PLACE)})
    place = [task.get(name) for name in PLACE]
    return values | {
        # Half of a place is none.
        **dict(zip(PLACE, place if None not in place else (None, None), strict=True)),
        "completed": completed,
        "completed_at": times.get("completed_at", updated) if completed else None,
        "created_at": created,
        "updated_at": updated,
        "deleted_at": times.get("deleted_at"),
    }


def sentences(error: ma.ValidationError) -> Iterator[str]:
    """What is wrong with an entry. A name out of a JSON file may have half a surrogate pair, which no answer can."""
    for field, message in flat(error.messages):
        yield f"{field}: {message}".encode(errors="replace").decode()


def text_of(body: bytes) -> str:
    """A file's text, without a byte order mark. Raises Invalid, naming the line, where it is not UTF-8."""
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise Invalid([(f"line {line}", "Is not UTF-8; save the file as UTF-8.")]) from None

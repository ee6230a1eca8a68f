"""Which tasks a list shows and in which order: the request's parameters as conditions on the tasks.

A Listing is the shape of a list, without its values, so that each shape is compiled once (`queries.py` does that); the
values go with it. Reads no clock.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, SmallInteger, Text, and_, any_, bindparam, func, not_, or_
from sqlalchemy.dialects.postgresql import ARRAY

from ..db.models import ID, PRIORITIES, tasks
from . import dates
from .search import fold, words


class Sort(NamedTuple):
    """A key to sort by: the column, the type of its values in a cursor, and whether a row may have none."""

    column: ColumnElement[Any]
    kind: type
    nullable: bool = False


SORTS = {
    "created_at": Sort(tasks.c.created_at, datetime),
    "updated_at": Sort(tasks.c.updated_at, datetime),
    "completed_at": Sort(tasks.c.completed_at, datetime, nullable=True),
    "due_date": Sort(tasks.c.due_key, datetime, nullable=True),
    "priority": Sort(tasks.c.priority, int),
    "title": Sort(tasks.c.title_key, str),
    "position": Sort(tasks.c.position, float),
}
NEWEST_FIRST = ("created_at", "updated_at", "completed_at", "priority")
# Other spellings of a sort key that clients send: name -> sort key and, where the name says it, the order.
SORT_NAMES: dict[str, tuple[str, str | None]] = {name: (name, None) for name in SORTS} | {
    "created": ("created_at", None),
    "updated": ("updated_at", None),
    "createdAt": ("created_at", None),
    "updatedAt": ("updated_at", None),
    "completedAt": ("completed_at", None),
    "dueDate": ("due_date", None),
    "newest": ("created_at", "desc"),
    "oldest": ("created_at", "asc"),
}


def _is(column: str, operator: str, name: str) -> ColumnElement[bool]:
    return tasks.c[column].op(operator)(bindparam(name, type_=tasks.c[column].type))


OVERDUE = and_(tasks.c.completed.is_(False), or_(_is("due_at", "<", "now"), _is("due_on", "<", "today")))
FILTERS: dict[str, ColumnElement[bool]] = {
    "priority": tasks.c.priority == any_(bindparam("priorities", type_=ARRAY(SmallInteger))),
    "category": _is("category", "=", "category"),
    "tags": tasks.c.tag_keys.contains(bindparam("tags", type_=ARRAY(Text))),
    "due_before": or_(_is("due_at", "<", "before_moment"), _is("due_on", "<", "before_day")),
    "due_after": or_(_is("due_at", ">", "after_moment"), _is("due_on", ">", "after_day")),
    "completed_before": _is("completed_at", "<", "completed_before"),
    "completed_after": _is("completed_at", ">", "completed_after"),
    "updated_after": _is("updated_at", ">", "updated_after"),
    "created_after": _is("created_at", ">", "created_after"),
    "overdue": func.coalesce(OVERDUE, False),
    "not_overdue": not_(func.coalesce(OVERDUE, False)),
}
# Those that compare with one moment, and what makes it of a day.
MOMENTS = {
    "completed_before": dates.before,
    **dict.fromkeys(("completed_after", "updated_after", "created_after"), dates.after),
}
STATUSES = {"all": None, "pending": False, "completed": True}
# These depend on when the list is asked for, so no version of the tasks tells whether it has changed.
TIMED = frozenset({"overdue", "not_overdue"})


@dataclass(frozen=True, slots=True)
class Listing:
    """The shape of a list. `completed` None: both; `filters`: names in FILTERS; `words`: how many are searched for."""

    sort: str = "created_at"
    descending: bool = True
    completed: bool | None = None
    deleted: bool = False
    filters: frozenset[str] = frozenset()
    words: int = 0
    count: bool = False

    @property
    def kind(self) -> type:
        """The type of the sort key's values."""
        return SORTS[self.sort].kind

    @property
    def timed(self) -> bool:
        """Whether it may change by the passing of time alone."""
        return bool(self.filters & TIMED)

    def name(self, owner: str, values: dict[str, Any]) -> str:
        """What tells this list from every other one; where it is timed, it stays itself from one page to the next."""
        told = [value for name, value in sorted(values.items()) if name not in ("now", "today")]
        # A set's own order is another one in each process.
        return f"{owner} {replace(self, filters=frozenset())} {sorted(self.filters) + told}"

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a task must meet; the owner's filter is not among them."""
        deleted = tasks.c.deleted_at
        found: list[ColumnElement[bool]] = [deleted.is_not(None) if self.deleted else deleted.is_(None)]
        if self.completed is not None:
            found.append(tasks.c.completed.is_(self.completed))
        found += [FILTERS[name] for name in sorted(self.filters)]
        return found + [_somewhere(bindparam(f"word{number}", type_=Text)) for number in range(self.words)]

    def order(self) -> list[ColumnElement[Any]]:
        """The sort key, nulls last, and ties by id."""
        column, _, nullable = SORTS[self.sort]
        first: list[ColumnElement[Any]] = [column.is_(None)] if nullable else []
        return [*first, *((column.desc(), tasks.c.id.desc()) if self.descending else (column, tasks.c.id))]

    def behind(self, has_key: bool) -> ColumnElement[bool]:
        """What comes behind the row with the sort key `key` (or behind one without) and the id `id`."""
        column, kind, nullable = SORTS[self.sort]
        id = bindparam("task", type_=ID)
        behind_id = tasks.c.id < id if self.descending else tasks.c.id > id
        if not has_key:
            return and_(column.is_(None), behind_id)
        pair, start = (
            func.row(column, tasks.c.id),
            func.row(bindparam("key", type_=BigInteger() if kind is int else column.type), id),
        )
        behind = pair < start if self.descending else pair > start
        return or_(behind, column.is_(None)) if nullable else behind


def _somewhere(word: ColumnElement[str]) -> ColumnElement[bool]:
    """`word` occurs in the title or the description; strpos knows no wildcards."""
    return or_(func.strpos(tasks.c.title_key, word) > 0, func.strpos(tasks.c.description_key, word) > 0)


def wanted(query: dict[str, Any], now: datetime) -> tuple[Listing, dict[str, Any]]:
    """The list that the parameters `query` ask for at `now`, and the values that its conditions need."""
    zone = query["tz"]
    sort, order = SORT_NAMES[query.get("sort", "created_at")]
    order = query.get("order") or order or ("desc" if sort in NEWEST_FIRST else "asc")
    found = words(query.get("search", ""))
    filters: set[str] = set()
    values: dict[str, Any] = {f"word{number}": word for number, word in enumerate(found)}
    if "priority" in query:
        filters.add("priority")
        values["priorities"] = sorted({PRIORITIES.index(name) + 1 for name in query["priority"]})
    if "category" in query:
        filters.add("category")
        values["category"] = query["category"]
    if query.get("tag"):
        filters.add("tags")
        values["tags"] = [fold(tag.strip()) for tag in query["tag"]]
    for name, bounds in (("before", dates.before), ("after", dates.after)):
        if f"due_{name}" in query:
            filters.add(f"due_{name}")
            values[f"{name}_moment"], values[f"{name}_day"] = bounds(query[f"due_{name}"], zone)
    for name, point in MOMENTS.items():
        if name in query:
            filters.add(name)
            values[name] = point(query[name], zone).moment
    if "overdue" in query:
        filters.add("overdue" if query["overdue"] else "not_overdue")
        values |= {"now": now, "today": now.astimezone(zone).date()}
    completed = STATUSES[query["status"]] if "status" in query else query.get("completed")
    shape = Listing(sort, order == "desc", completed, query["deleted"], frozenset(filters), len(found), query["count"])
    return shape, values

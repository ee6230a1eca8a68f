"""The contract's schemas in a dialect, each derived from the contract's own by replacing and adding some fields.

So reading, 422s and the document say the same. Which fields these are is told by their names and types: a new field
needs nothing here. What is loaded are the contract's names and values; nothing behind a schema knows of a dialect.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import marshmallow as ma
from marshmallow import fields
from marshmallow.validate import OneOf

from ..db.models import MAX_TITLE, PRIORITIES
from ..dialect import Dialect
from ..tasks.listing import SORTS
from .fields import Inner, Priority, Text
from .parameters import Aliased, SweepQuery
from .tasks import Completion, ProblemDetails, Task, TaskCreate, TaskFields
from .words import TURNED, Choice, Done, JoinedTags, OfOperation

Shape = type[ma.Schema]
Fields = dict[str, fields.Field[Any]]
ADDRESS = {
    "format": "uri",
    "description": "Where it is.",
    "example": "https://tasks.example.com/api/tasks/0197c9a4-6d2f-7c3e-9b41-5f0d2a7e8c10",
}


class ErrorObject(ma.Schema):
    """An error once more, for clients that look for it here."""

    code = fields.String(required=True, metadata={"example": "invalid"})
    message = fields.String(required=True, metadata={"example": "title: Length must be between 1 and 200."})


class Spoken(ma.Schema):
    """What a body says in a dialect becomes the contract's own before it is loaded.

    `aliases`: other name -> field. Where a body has both, the other name counts: it's the one that its sender knows.
    Only of `completed` either may be the echo of an earlier answer, so the one counts that differs from what is stored;
    which is to say that it's turned around. `makes`: a task is made of it.
    """

    dialect: ClassVar[Dialect]
    aliases: ClassVar[Mapping[str, str]] = {}
    makes: ClassVar[bool] = False

    @ma.pre_load
    def translate(self, data: Any, **_: Any) -> Any:
        return self.own(data) if isinstance(data, dict) else data

    def own(self, data: dict[str, Any]) -> dict[str, Any]:
        """The same by the contract's names."""
        found = {name: value for name, value in data.items() if name not in self.aliases}
        for alias, name in self.aliases.items():
            if alias in data:
                turned = name == "completed" and self._differ(data[alias], data.get(name))
                found[name] = (self.makes or TURNED) if turned else data[alias]
        if self.dialect.none:
            found |= {name: None for name, value in found.items() if value == self.dialect.none and self._empties(name)}
        if self.makes and self.dialect.title and is_blank(found.get("title")):
            text = found.get(self.dialect.title)
            if isinstance(text, str) and not is_blank(text):
                found["title"] = text.strip()[:MAX_TITLE]
        return found

    def _differ(self, one: Any, other: Any) -> bool:
        done = cast(Done, self.load_fields["completed"])
        return {done.flag(one), done.flag(other)} == {True, False}

    def _empties(self, name: str) -> bool:
        """In a text, somebody may have written the word and meant it."""
        field = self.load_fields.get(name)
        return field is not None and field.allow_none and not isinstance(field, Text)

    def named(self, messages: dict[str, Any], data: Any) -> dict[str, Any]:
        """What is wrong, by the names that the client has."""
        has = data if isinstance(data, dict) else {}
        theirs = {name: alias for alias, name in self.aliases.items() if alias in has or name not in has}
        return {theirs.get(name, name): text for name, text in messages.items()}

    def handle_error(self, error: ma.ValidationError, data: Any, **_: Any) -> None:
        error.messages = self.named(error.messages_dict, data)

    @ma.validates_schema
    def has_title(self, data: dict[str, Any], **_: Any) -> None:
        """Not by the field itself, which the document would call required: it may come by another name."""
        if self.makes and "title" not in data:
            raise ma.ValidationError("Missing data for required field.", "title")


def is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def derived(dialect: Dialect, shape: Shape, class_of: Callable[[Shape], Shape]) -> Shape:
    """`shape` in the dialect; `class_of` gives those of what is inside."""
    own: Fields = dict(shape._declared_fields)
    mine = {name: field_of(dialect, name, field, class_of) for name, field in own.items()}
    bases: tuple[type, ...] = (shape,)
    known: dict[str, Any] = {}
    if issubclass(shape, Aliased | SweepQuery):
        bases = (shape,) if issubclass(shape, Aliased) else (Aliased, shape)
        known["aliases"] = parameters(dialect, shape, mine)
    elif issubclass(shape, Task):
        answered(dialect, mine)
    elif issubclass(shape, TaskFields | Completion) or {"op", "completed"} <= own.keys():
        bases = (Spoken, shape)
        known |= {"dialect": dialect, "makes": issubclass(shape, TaskCreate)}
        known["aliases"] = spoken(dialect, shape, mine)
    elif issubclass(shape, ProblemDetails) and dialect.error:
        mine[dialect.error] = fields.Nested(ErrorObject, required=True)
    if isinstance(own.get("task"), Inner) and "op" in own:
        mine["task"] = of_operation(own["task"], mine["task"], class_of(TaskCreate)())
    if hasattr(shape, "variants") and dialect.done:
        known["variants"] = {
            name: form._replace(optional=[*form.optional, dialect.done]) if "completed" in form.optional else form
            for name, form in shape.variants.items()
        }
    changed = {name: field for name, field in mine.items() if field is not own.get(name)}
    if not changed and not known:
        return shape
    made = type(shape.__name__, bases, {"__doc__": shape.__doc__, "__module__": shape.__module__} | changed)
    # Afterwards: by now, a field of such a name has made room.
    for name, value in known.items():
        setattr(made, name, value)
    return made


def field_of(
    dialect: Dialect, name: str, field: fields.Field[Any], class_of: Callable[[Shape], Shape]
) -> fields.Field[Any]:
    """The field in the dialect, or as it is where that has nothing to say of it."""
    if dialect.tags and name == "tags" and isinstance(field, fields.List):
        return JoinedTags(dialect.tags, field.metadata, required=field.required)
    if dialect.priority and (isinstance(field, Priority) or (name, type(field)) == ("priority", fields.String)):
        words = dict(zip(dialect.priority, PRIORITIES, strict=True))
        return choice(field, {own: own for own in PRIORITIES} | words, dialect.priority)
    if dialect.priority and name in PRIORITIES and isinstance(field, fields.Integer):
        return changed_field(field, data_key=dialect.priority[PRIORITIES.index(name)])
    if isinstance(field, fields.Nested):
        inside = cast(Shape, field.nested)
        return field if class_of(inside) is inside else changed_field(field, nested=class_of(inside), _schema=None)
    if isinstance(field, fields.List):
        inner = field_of(dialect, name, field.inner, class_of)
        return field if inner is field.inner else changed_field(field, inner=inner)
    return field


def changed_field(field: fields.Field[Any], **changes: Any) -> fields.Field[Any]:
    made = copy.copy(field)
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def choice(field: fields.Field[Any], values: dict[str, Any], shown: Any) -> Choice:
    """A field for words, otherwise like `field`."""
    kept = {name: getattr(field, name) for name in ("required", "allow_none", "load_default")}
    told = dict(field.metadata)
    if "example" in told:
        told["example"] = next(word for word in shown if values[word] == told["example"])
    return Choice(values, shown, metadata=told, **kept)


def words_of(field: fields.Field[Any]) -> list[str]:
    """The words that a field takes."""
    [one_of] = [check for check in field.validators if isinstance(check, OneOf)]
    return list(one_of.choices)


def parameters(dialect: Dialect, shape: Any, own: Fields) -> dict[str, str]:
    """Change the fields of a query; the other names of its parameters."""
    aliases: dict[str, str] = dict(getattr(shape, "aliases", {}))
    targets = {new: name for name, new in dialect.names if name in own and new not in own and new not in aliases}
    sweeps = dialect.sweep if issubclass(shape, SweepQuery) else None
    if "sort" in own:
        keys = {new: name for name, new in dialect.names if name in SORTS}
        shown = [*own["sort"].metadata["enum"], *keys]
        own["sort"] = choice(own["sort"], {name: name for name in words_of(own["sort"])} | keys, shown)
    if dialect.words or sweeps:
        words = dict(zip(("pending", "completed"), dialect.words, strict=False))
        ours = words_of(own["status"])
        theirs = {words[name]: name for name in ours if name in words}
        # Nobody who asks for the completed ones to go in another way may lose all.
        flags = {"true": "completed"} if sweeps else {}
        values = {name: name for name in ours} | theirs | flags
        own["status"] = choice(own["status"], values, [words.get(name, name) for name in ours])
    if sweeps:
        own["status"] = changed_field(own["status"], required=False, load_default=sweeps)
        aliases["completed"] = "status"
    if dialect.done and dialect.done not in own and (dialect.words or sweeps or "completed" in own):
        targets[dialect.done] = "status" if dialect.words or sweeps else "completed"
    own |= {new: changed_field(own[name], required=False) for new, name in targets.items()}
    return aliases | targets


def answered(dialect: Dialect, own: Fields) -> None:
    """Add to the fields of a task that is answered."""
    own |= {new: own[name] for name, new in dialect.names}
    if dialect.done and dialect.words:
        own[dialect.done] = done_word(dialect, required=True)
    elif dialect.done:
        own[dialect.done] = own["completed"]
    if dialect.url:
        own[dialect.url] = fields.String(required=True, metadata=ADDRESS)


def spoken(dialect: Dialect, shape: Shape, own: Fields) -> dict[str, str]:
    """Add to the fields of a body; the other names of its fields."""
    aliases = {new: name for name, new in dialect.names} if issubclass(shape, TaskFields) else {}
    if "title" in own and (dialect.title or "title" in aliases.values()):
        own["title"] = changed_field(own["title"], required=False)
    own |= {new: own[name] for new, name in aliases.items() if name in own}
    if dialect.done:
        own["completed"] = Done(dialect.words, metadata=own["completed"].metadata)
        own[dialect.done] = done_word(dialect) if dialect.words else own["completed"]
        aliases[dialect.done] = "completed"
    return aliases


def done_word(dialect: Dialect, **kwargs: Any) -> Choice:
    values = dict(zip(dialect.words, (False, True), strict=True))
    return Choice(values, dialect.words, {"description": "Done or not.", "example": dialect.words[0]}, **kwargs)


def of_operation(own: fields.Field[Any], field: fields.Field[Any], making: ma.Schema) -> OfOperation:
    made = OfOperation(cast(Inner, field).nested, required=own.required, metadata=own.metadata)
    made.making = making
    return made

"""Types of fields that have a dialect's words; what they load is the contract's own."""

from collections.abc import Mapping, Sequence
from typing import Any

import marshmallow as ma
from marshmallow import fields

from .fields import MAX_LISTED_TAGS, Inner, StrictBoolean, Tags, load_inner

# In the place of `completed`: the other of what is stored.
TURNED = object()


class Choice(fields.String):
    """One of some words, in any case, each of which stands for a value; `shown` are those that are told of."""

    def __init__(
        self, values: Mapping[str, Any], shown: Sequence[str], metadata: dict[str, Any], **kwargs: Any
    ) -> None:
        enum = [*shown, None] if kwargs.get("allow_none") else [*shown]
        super().__init__(metadata=metadata | {"enum": enum}, **kwargs)
        self.values = {word.casefold(): value for word, value in values.items()} | dict(values)
        self.shown, self.words = shown, {value: word for word, value in values.items() if word in shown}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        for word in (text, text.casefold()):
            if word in self.values:
                return self.values[word]
        raise ma.ValidationError(f"Must be one of: {', '.join(self.shown)}.")

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return self.words[value]


class Done(StrictBoolean):
    """True or false, or one of the two words for it; or TURNED, which becomes None."""

    def __init__(self, words: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = words
        self._flags: dict[str, bool] = dict(zip(map(str.casefold, words), (False, True), strict=False))

    def flag(self, value: Any) -> bool | None:
        """What `value` means; None for what isn't one."""
        if isinstance(value, str):
            return self._flags.get(value.casefold())
        return value if isinstance(value, bool) else None

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        flag = self.flag(value)
        if flag is None and value is not TURNED:
            raise ma.ValidationError(f"Must be {' or '.join(self.words or ('true', 'false'))}.")
        return flag


class JoinedTags(fields.String):
    """Tags as one text, or as a list; none is null."""

    def __init__(self, separator: str, metadata: Mapping[str, Any], **kwargs: Any) -> None:
        told = {"description": f"Joined by `{separator}`; null: none."}
        example = {"example": separator.join(metadata["example"])}
        super().__init__(allow_none=True, metadata=dict(metadata) | told | example, **kwargs)
        self.separator, self.tags = separator, Tags()

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, str):
            # One more than may be is enough to refuse.
            value = [tag for tag in value.split(self.separator, MAX_LISTED_TAGS + 1) if tag.strip()]
        elif isinstance(value, list) and all(isinstance(tag, str) for tag in value[: MAX_LISTED_TAGS + 1]):
            value = [part for tag in value for part in (tag.split(self.separator) if isinstance(tag, str) else [tag])]
        return self.tags.deserialize(value, attr, data, **kwargs)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return self.separator.join(value) or None


class OfOperation(Inner):
    """The task of an operation in a batch; that of one which creates is loaded by `making`."""

    making: ma.Schema

    def _deserialize(self, value: Any, attr: str | None, data: Any, partial: Any = None, **kwargs: Any) -> Any:
        if data.get("op") == "create":
            return load_inner(self.making, value)
        return super()._deserialize(value, attr, data, partial, **kwargs)

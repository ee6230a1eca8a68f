"""The language of recurrence rules: RFC 5545's RRULE (section 3.3.10), as much of it as makes sense for tasks.

`parse` turns a client's text into the rule to store, `read` a stored rule into its parts, `write` parts into a rule.
`fitting` says which days it means. What comes after an occurrence is `successor.py`'s.
"""

import re
from calendar import monthrange
from datetime import date, datetime
from functools import lru_cache
from typing import NamedTuple

from .days import Fitting, happens

MAX_LENGTH = 500

WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
EVERY_MONTH = tuple(range(1, 13))
SHORTCUTS = {"daily": "DAILY", "weekly": "WEEKLY", "monthly": "MONTHLY", "yearly": "YEARLY"}

Parts = dict[str, str]


class Part(NamedTuple):
    """What one part of a rule may hold: a pattern for the value, or for each of a list's, and its description."""

    pattern: str
    must: str
    many: bool = False


# In the order in which a rule is stored: FREQ first, as RFC 5545 asks for.
PARTS = {
    "FREQ": Part("DAILY|WEEKLY|MONTHLY|YEARLY", "must be DAILY, WEEKLY, MONTHLY or YEARLY"),
    "INTERVAL": Part("[1-9][0-9]{0,2}", "must be a whole number from 1 to 999"),
    "BYMONTH": Part("0?[1-9]|1[0-2]", "must list months, from 1 to 12", many=True),
    "BYMONTHDAY": Part("[+-]?(0?[1-9]|[12][0-9]|3[01])", "must list days, from 1 to 31 or from -31 to -1", many=True),
    "BYDAY": Part(
        f"([+-]?(0?[1-9]|[1-4][0-9]|5[0-3]))?({'|'.join(WEEKDAYS)})",
        "must list weekdays (MO, TU, WE, TH, FR, SA, SU), with an ordinal (1MO, -1FR) or without",
        many=True,
    ),
    "BYSETPOS": Part("-1", "must be -1, after FREQ=MONTHLY and BYMONTHDAY=28,29 or 28,29,30 or 28,29,30,31"),
    "WKST": Part("|".join(WEEKDAYS), "must be MO, TU, WE, TH, FR, SA or SU"),
    "COUNT": Part("[1-9][0-9]{0,3}", "must be a whole number from 1 to 9999"),
    "UNTIL": Part(
        "[0-9]{8}(T([01][0-9]|2[0-3])([0-5][0-9]){2}Z)?", "must be a date (20261231) or a UTC time (20261231T180000Z)"
    ),
}


@lru_cache(maxsize=1024)
def parse(value: str) -> str:
    """The rule to store for a shortcut or an RRULE value, in any case, with or without `RRULE:` in front.

    `rrule:interval=2;freq=monthly;byday=+1mo` becomes `FREQ=MONTHLY;INTERVAL=2;BYDAY=1MO`, and that stays as it is.
    Raises ValueError, with a sentence for the user, on what isn't supported, breaks RFC 5545, or never happens.
    """
    if len(value) > MAX_LENGTH:
        raise ValueError(f"Must be at most {MAX_LENGTH} characters long.")
    if not (value.isascii() and value.isprintable()):
        raise ValueError("Must be one line of plain ASCII characters.")
    rule = value.strip().upper()
    if rule.lower() in SHORTCUTS:
        return rule.lower()
    parts: Parts = {}
    for part in rule.removeprefix("RRULE:").split(";"):
        name, _, text = part.partition("=")
        if name not in PARTS:
            raise ValueError(f"Must be {', '.join(SHORTCUTS)} or a rule of the parts {', '.join(PARTS)}.")
        if name in parts:
            raise ValueError(f"{name} must not be given twice.")
        parts[name] = _canonical(name, text)
    _check(parts)
    return write(parts)


def to_ics(rule: str, due: date) -> str:
    """`rule` as the RRULE value of a calendar entry whose DTSTART is `due`, as written there: a day, or a local time.

    Other programs then come to the days that `successor` gives. UNTIL takes DTSTART's form, as RFC 5545 demands.
    """
    parts = read(rule)
    parts |= clamped(parts, due)
    if until := parts.get("UNTIL"):
        parts["UNTIL"] = (until if "T" in until else until + "T235959Z") if isinstance(due, datetime) else until[:8]
    return write(parts)


def read(rule: str) -> Parts:
    """The parts of a rule that `parse` has accepted."""
    if rule in SHORTCUTS:
        return {"FREQ": SHORTCUTS[rule]}
    return dict(part.split("=") for part in rule.split(";"))


def write(parts: Parts) -> str:
    return ";".join(f"{name}={parts[name]}" for name in PARTS if name in parts)


def clamped(parts: Parts, start: date) -> Parts:
    """The parts that make a rule with no day of its own fall on `start`'s or, in a shorter month, on the last.

    RFC 5545 skips months without a 31st, which is not what "monthly" in a list of tasks says to people. Spelt out, the
    last day is good RFC 5545, and is still known when a due date has become a 28th. Empty where every month is long
    enough. (`FREQ=YEARLY;BYMONTH=2,3` on a 29th can't be spelt out, nor its like: there the RFC's skipping stays.)
    """
    frequency = parts["FREQ"]
    if frequency in ("DAILY", "WEEKLY") or parts.keys() & {"BYDAY", "BYMONTHDAY"}:
        return {}
    months = parts.get("BYMONTH", ",".join(map(str, EVERY_MONTH)) if frequency == "MONTHLY" else str(start.month))
    lengths = [monthrange(year, int(month))[1] for year in (2000, 2001) for month in months.split(",")]
    if start.day <= min(lengths):
        return {}
    if start.day >= max(lengths):
        return {"BYMONTHDAY": "-1"} | ({"BYMONTH": months} if frequency == "YEARLY" else {})
    if frequency == "MONTHLY":
        return {"BYMONTHDAY": ",".join(map(str, range(28, start.day + 1))), "BYSETPOS": "-1"}
    return {}


def fitting(parts: Parts, start: date) -> Fitting:
    """What a day must be to fit the rule begun on `start`, INTERVAL aside."""
    frequency, by = parts["FREQ"], parts | clamped(parts, start)
    months, month_days = _numbers(by, "BYMONTH"), _numbers(by, "BYMONTHDAY")
    weekdays = (
        tuple((int(day[:-2] or 0), WEEKDAYS.index(day[-2:])) for day in by["BYDAY"].split(",")) if "BYDAY" in by else ()
    )
    in_months = frequency == "MONTHLY" or bool(months)
    if frequency == "WEEKLY":
        weekdays = weekdays or ((0, start.weekday()),)
    elif frequency != "DAILY" and not (month_days or weekdays):
        month_days = (start.day,)
        months = months or ((start.month,) if frequency == "YEARLY" else ())
    return Fitting(months or EVERY_MONTH, month_days, weekdays, in_months, "BYSETPOS" in by)


def _numbers(parts: Parts, name: str) -> tuple[int, ...]:
    return tuple(map(int, parts[name].split(","))) if name in parts else ()


def _canonical(name: str, text: str) -> str:
    """The text of part `name` without superfluous signs and zeros. Raises ValueError."""
    if not PARTS[name].many:
        return _item(name, text)
    items = [_listed(name, item) for item in text.split(",")]
    if len(set(items)) < len(items):
        raise ValueError(f"{name} must not list a value twice.")
    return ",".join(items)


def _item(name: str, text: str) -> str:
    pattern, must, _ = PARTS[name]
    if not re.fullmatch(pattern, text):
        raise ValueError(f"{name} {must}.")
    return text


@lru_cache(maxsize=4096)
def _listed(name: str, text: str) -> str:
    """Kept, as a rule may list a hundred, and there are not many more."""
    return re.sub(r"^\+?(-?)0*", r"\1", _item(name, text))


def _check(parts: Parts) -> None:
    """Raise ValueError where parts that are good by themselves don't go together, or no day is left."""
    frequency, days = parts.get("FREQ"), parts.get("BYDAY", "").split(",")
    ordinals = [int(day[:-2]) for day in days if day[:-2]]
    in_months = frequency == "MONTHLY" or "BYMONTH" in parts
    only_last = frequency == "MONTHLY" and "BYDAY" not in parts
    only_last = only_last and parts.get("BYMONTHDAY") in ("28,29", "28,29,30", "28,29,30,31")
    for wrong, sentence in (
        (not frequency, "FREQ is missing."),
        ("COUNT" in parts and "UNTIL" in parts, "COUNT and UNTIL must not be given together."),
        (frequency == "WEEKLY" and "BYMONTHDAY" in parts, "BYMONTHDAY must not be given with FREQ=WEEKLY."),
        (ordinals and frequency in ("DAILY", "WEEKLY"), "BYDAY may have ordinals in months and years only."),
        # More would never match.
        (in_months and any(abs(n) > 5 for n in ordinals), "BYDAY's ordinals must be -5 to 5 within a month."),
        ("BYSETPOS" in parts and not only_last, f"BYSETPOS {PARTS['BYSETPOS'].must}."),
        ("UNTIL" in parts and not _exists(parts["UNTIL"]), f"UNTIL {PARTS['UNTIL'].must} that exists."),
    ):
        if wrong:
            raise ValueError(sentence)
    # A rule that leaves the day to its start has one, whatever the start is.
    if not happens(fitting(parts, date(2000, 1, 1))):
        raise ValueError("This rule never happens: no day fits all of its parts.")


def _exists(until: str) -> bool:
    try:
        datetime.fromisoformat(until)
    except ValueError:
        return False
    return True

"""When a task comes round again: what follows an occurrence that is done.

A rule describes its series from the occurrence at hand on, which is the DTSTART and the first that COUNT counts (RFC
5545, section 3.3.10). A successor's rule may therefore differ from its predecessor's: COUNT has shrunk, or a day that
the month lacks has been spelt out. Pure: values in, values out, `now` included. Which rules there are is `rrule.py`'s;
keeping them, and "at most once", is the caller's.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal

from dateutil.rrule import rrulestr

from .rrule import WEEKDAYS, Parts, clamped, day_rule, parse, read, to_ics, write

__all__ = ["parse", "successor", "to_ics"]

# The search gives up after so many years, in a row, in which days fit but for INTERVAL or the clock. (Years with no
# such day don't count: the next Monday 29 February may be decades away.) What makes sense comes sooner; what never
# comes, as every 7 days from a Sunday on Mondays, would keep it busy up to the year 9999.
FRUITLESS_YEARS = 50


def successor(
    rule: str, due: date, repeat_from: Literal["due", "completion"], now: datetime, tz: tzinfo = UTC
) -> tuple[str, date] | None:
    """The rule and the due date of what follows, once the task due at `due` is done; None when the series is over.

    `rule` is what `parse` returned. `due` is a day, or a moment with its offset; the answer has the same form, a moment
    in UTC. It lies after `due` and after `now`, a day after today: what was missed is skipped. Days are those of `tz`,
    and a moment keeps its time on the clock there, so all of a series takes the same `tz`.

    - From "due", the pattern stays where it is, and COUNT also counts what was skipped.
    - From "completion", the pattern starts today, and COUNT counts completions.
    - A time that the clock leaps over on some day is no occurrence (RFC 5545, section 3.3.10); moving it would move all
      that follow, too. Of a time that comes twice, the first is meant (section 3.3.5).
    - UNTIL is inclusive. A DATE is a day in `tz`; a DATE-TIME against a day counts by its date as written.

    Raises ValueError when `due` or `now` is a moment without an offset.
    """
    if now.tzinfo is None or (isinstance(due, datetime) and due.tzinfo is None):
        raise ValueError("a moment needs its offset")
    parts = read(rule)
    try:
        today = now.astimezone(tz).date()
        local = due.astimezone(tz) if isinstance(due, datetime) else None
        day_due = local.date() if local else due
        start = day_due if repeat_from == "due" else today
        left = int(parts["COUNT"]) if "COUNT" in parts else None
        since = max(start, day_due) + timedelta(days=1)
        if left is None:
            since = max(since, today)  # past what was missed; with a COUNT, that has to be counted
        for day, moment in _occurrences(parts, start, since, local.time() if local else None, tz):
            left = left and left - 1
            if left == 0 or _is_over(parts, day, moment):
                return None
            if moment > max(due, now) if moment else day > max(due, today):
                break
        else:
            return None
    except OverflowError:  # beyond the year 9999, here or in UTC
        return None
    following = parts | ({"COUNT": str(left)} if left else {})
    if repeat_from == "due" and day.day != start.day:
        following |= clamped(parts, start)
    return rule if following == parts else write(following), moment or day


def _occurrences(
    parts: Parts, start: date, since: date, clock: time | None, tz: tzinfo
) -> Iterator[tuple[date, datetime | None]]:
    """From `since` on, the days of the series begun on `start`, each with the moment of `clock` if there is one.

    Ends with the calendar, or after FRUITLESS_YEARS. Raises OverflowError where UTC leaves the calendar.
    """
    interval, origin = int(parts.get("INTERVAL", 1)), _period(parts, start)
    rule = day_rule(parts, start)
    year = fruitless = 0
    while True:
        for midnight in rrulestr(rule, dtstart=datetime.combine(since, time())):
            day = midnight.date()
            period = _period(parts, day)
            ahead = (origin - period) % interval
            moment = _at(day, clock, tz) if clock and not ahead else None
            if moment or not (clock or ahead):
                fruitless = 0
                yield day, moment
                continue
            if day.year > year:
                year, fruitless = day.year, fruitless + 1
                if fruitless > FRUITLESS_YEARS:
                    return
            since = _first_day(parts, period + ahead)
            if since.year > day.year:  # within a year, reading on is faster than starting again
                break
        else:
            return


def _period(parts: Parts, day: date) -> int:
    """The number of the day, week, month or year that `day` is in: what INTERVAL counts."""
    match parts["FREQ"]:
        case "DAILY":
            return day.toordinal()
        case "WEEKLY":
            return (day.toordinal() - 1 - WEEKDAYS.index(parts.get("WKST", "MO"))) // 7
        case "MONTHLY":
            return day.year * 12 + day.month - 1
        case _:
            return day.year


def _first_day(parts: Parts, period: int) -> date:
    """Where a period begins; the last of all days if that is beyond the year 9999."""
    try:
        match parts["FREQ"]:
            case "DAILY":
                return date.fromordinal(period)
            case "WEEKLY":
                return date.fromordinal(period * 7 + 1 + WEEKDAYS.index(parts.get("WKST", "MO")))
            case "MONTHLY":
                return date(period // 12, period % 12 + 1, 1)
            case _:
                return date(period, 1, 1)
    except ValueError:
        return date.max


def _at(day: date, clock: time, tz: tzinfo) -> datetime | None:
    """The moment, in UTC, when clocks in `tz` first show `clock` on `day`; None if they never do."""
    local = datetime.combine(day, clock.replace(fold=0))
    moment = local.replace(tzinfo=tz).astimezone(UTC)
    return moment if moment.astimezone(tz).replace(tzinfo=None) == local else None


def _is_over(parts: Parts, day: date, moment: datetime | None) -> bool:
    if "UNTIL" not in parts:
        return False
    until = datetime.fromisoformat(parts["UNTIL"])
    return moment > until if moment and until.tzinfo else day > until.date()

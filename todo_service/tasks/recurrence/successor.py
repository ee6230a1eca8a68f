"""When a task comes round again: what follows an occurrence that is done.

A rule describes its series from the occurrence at hand on, which is the DTSTART and the first that COUNT counts (RFC
5545, section 3.3.10). A successor's rule may therefore differ from its predecessor's: COUNT has shrunk, or a day that
the month lacks has been spelt out. Pure: values in, values out, `now` included. Which rules there are is `rules.py`'s;
keeping them, and "at most once", is the caller's.
"""

from calendar import isleap
from collections.abc import Iterator
from datetime import MAXYEAR, UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from typing import Literal

from .days import CALENDARS, calendars, of_months, regular
from .rules import WEEKDAYS, Parts, clamped, fitting, parse, read, to_ics, write

__all__ = ["parse", "successor", "to_ics"]

# The search gives up after so many years, in a row, in which days fit and periods have their turn, but no day has both
# and the time. (Other years don't count: the next Monday 29 February may be decades away.) What makes sense comes
# sooner; what never comes, as every 7 days from a Sunday on Mondays, would keep it busy up to the year 9999.
FRUITLESS_YEARS = 100
ALL_DAYS = -1


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
        clock = local.time() if local else None
        since = max(start, day_due) + timedelta(days=1)
        if left:  # what was missed counts
            left -= _count(parts, start, since, today, clock, tz)
            if left < 1:
                return None
        for day, moment in _occurrences(parts, start, max(since, today), clock, tz):
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
    fruitless = 0
    for year, days in _years(parts, start, since):
        fruitless += 1
        for day in _dates(year, days):
            moment = _at(day, clock, tz) if clock else None
            if moment or not clock:
                fruitless = 0
                yield day, moment
        if fruitless > FRUITLESS_YEARS:
            return


def _count(parts: Parts, start: date, since: date, until: date, clock: time | None, tz: tzinfo) -> int:
    """How many occurrences there are from `since` to the day before `until`, without going through them."""
    found = 0
    for year, days in _years(parts, start, since, until.year):
        if year == until.year:
            days &= (1 << (until - date(year, 1, 1)).days) - 1
        found += days.bit_count()
        if clock:
            found -= sum(_at(day, clock, tz) is None for day in _dates(year, days & _clock_changes(tz, year)))
    return found


def _years(parts: Parts, start: date, since: date, last: int = MAXYEAR) -> Iterator[tuple[int, int]]:
    """The years up to `last` in which days fit and a period has its turn; their days, from `since` on, that do both."""
    fit, year = calendars(fitting(parts, start)), since.year
    before = (1 << (since - date(year, 1, 1)).days) - 1
    while year <= last:
        wait = 1
        if days := fit[CALENDARS[year % 400]]:
            wait, turn = _turn(parts, start, year)
            if turn:
                yield year, days & turn & ~before
        before = 0
        year += wait


def _turn(parts: Parts, start: date, year: int) -> tuple[int, int]:
    """For how many years to wait for a period that, by INTERVAL, has its turn; and the days of those in `year`."""
    interval, first = int(parts.get("INTERVAL", 1)), date(year, 1, 1).toordinal()
    match parts["FREQ"]:
        case "DAILY":
            return 1, regular(interval, 1) >> (first - start.toordinal()) % interval
        case "WEEKLY":
            into_week = (start.weekday() - WEEKDAYS.index(parts.get("WKST", "MO"))) % 7
            return 1, regular(7 * interval, 7) >> (first - start.toordinal() + into_week) % (7 * interval)
        case "MONTHLY":
            months = ((start.year - year) * 12 + start.month - 1) % interval
            return max(months // 12, 1), of_months(isleap(year), range(months, 12, interval))
        case _:
            wait = (start.year - year) % interval
            return wait or interval, 0 if wait else ALL_DAYS


def _dates(year: int, days: int) -> Iterator[date]:
    first = date(year, 1, 1).toordinal() - 1
    while days:
        yield date.fromordinal(first + (days & -days).bit_length())
        days &= days - 1


@lru_cache(maxsize=4096)
def _clock_changes(tz: tzinfo, year: int) -> int:
    """The days of a year on which clocks may leap: the offset from UTC is another than on a day next to them.

    (A leap over midnight shows a day late.) The year's first and last days always, as no other year is looked at.
    """
    first, length = datetime(year, 1, 1), 365 + isleap(year)
    offsets = [tz.utcoffset(first + timedelta(days=n)) for n in range(length)]
    changes = 0
    for n, (offset, following) in enumerate(pairwise(offsets)):
        if offset != following:
            changes |= 7 << n
    return changes >> 1 | 1 | 3 << (length - 2)


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

"""When something is due, compared with a day or a moment. Pure: takes the time zone, reads no clock.

A task that is due on a day has that whole day, as the user's calendar has it: it is compared by day. One that is due at
a moment is compared by moments. So each bound becomes two, one for either kind; which of them a task is held against
depends on the kind of its own due date.
"""

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import NamedTuple

MICROSECOND = timedelta(microseconds=1)
LAST_MOMENT = datetime.max.replace(tzinfo=UTC)


class Bounds(NamedTuple):
    """The same point as a moment and as a day."""

    moment: datetime
    day: date


def before(bound: date, zone: tzinfo) -> Bounds:
    """Due before `bound`: at a moment < `.moment`, or on a day < `.day`."""
    if isinstance(bound, datetime):
        return Bounds(bound, day_of(bound, zone))
    return Bounds(midnight(bound, zone), bound)


def after(bound: date, zone: tzinfo) -> Bounds:
    """Due after `bound`: at a moment > `.moment`, or on a day > `.day`."""
    if isinstance(bound, datetime):
        return Bounds(bound, day_of(bound, zone))
    if bound == date.max:
        return Bounds(LAST_MOMENT, bound)
    return Bounds(midnight(bound + timedelta(days=1), zone) - MICROSECOND, bound)


def day_of(moment: datetime, zone: tzinfo) -> date:
    """The day that calendars in `zone` show at `moment`; the last there is, where they show the year 10000 already."""
    try:
        return moment.astimezone(zone).date()
    except OverflowError:
        return date.max


def midnight(day: date, zone: tzinfo) -> datetime:
    """When `day` begins in `zone`, in UTC. Where clocks skip midnight, at the first moment of the day there is."""
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)

"""Which days fit a rule, as sets that are counted and searched without a walk through the days. Pure.

The days of a year are the bits of one number, 1 January the lowest. Only fourteen calendars exist: a year begins on one
of seven weekdays, and is a leap year or not; so fourteen numbers say all of a rule but its INTERVAL.
"""

from calendar import isleap
from datetime import date
from functools import cache, lru_cache
from itertools import accumulate
from typing import NamedTuple

LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# The first day and the length of each month, in a common year and in a leap year.
MONTHS = tuple(
    tuple(zip(accumulate(lengths, initial=0), lengths, strict=False)) for lengths in (LENGTHS, (31, 29, *LENGTHS[2:]))
)
# Which calendar a year has, by its place among 400: those are whole weeks, so they come again.
CALENDARS = tuple(date(year, 1, 1).weekday() + 7 * isleap(year) for year in (400, *range(1, 400)))


class Fitting(NamedTuple):
    """What a day must be. `weekdays` are pairs of an ordinal, or 0 for every one, and a weekday, Monday being 0.

    Empty `month_days` or `weekdays` leave that open. Ordinals count `in_months`, or in years. `only_last`: of the
    `month_days`, only the last that a month has.
    """

    months: tuple[int, ...]
    month_days: tuple[int, ...]
    weekdays: tuple[tuple[int, int], ...]
    in_months: bool
    only_last: bool


def happens(rule: Fitting) -> bool:
    """Whether any day fits."""
    return any(_days(rule, calendar) for calendar in range(14))


@lru_cache(maxsize=1024)
def calendars(rule: Fitting) -> tuple[int, ...]:
    """The days that fit, in each of the fourteen calendars."""
    return tuple(_days(rule, calendar) for calendar in range(14))


@lru_cache(maxsize=1024)
def of_months(leap: bool, months: range) -> int:
    """All days of `months`, January being 0."""
    days = 0
    for month in months:
        first, length = MONTHS[leap][month]
        days |= ((1 << length) - 1) << first
    return days


@lru_cache(maxsize=256)
def regular(period: int, width: int) -> int:
    """The first `width` days of each `period`, in more than a year and a period."""
    days, reach = (1 << width) - 1, period
    while reach < 366 + period:
        days |= days << reach
        reach *= 2
    return days


def _days(rule: Fitting, calendar: int) -> int:
    days = _of_the_months(rule.months, rule.month_days, rule.only_last, calendar >= 7)
    if not days or not rule.weekdays:
        return days
    weekdays = 0
    for ordinal, weekday in rule.weekdays:
        weekdays |= _weekday(calendar, rule.in_months, ordinal, weekday)
    return days & weekdays


@lru_cache(maxsize=1024)
def _of_the_months(months: tuple[int, ...], month_days: tuple[int, ...], only_last: bool, leap: bool) -> int:
    # By length, because a month's own days depend on that alone.
    within = {length: _of_a_month(length, month_days, only_last) for length in (28, 29, 30, 31)}
    days = 0
    for month in months:
        first, length = MONTHS[leap][month - 1]
        days |= within[length] << first
    return days


def _of_a_month(length: int, month_days: tuple[int, ...], only_last: bool) -> int:
    if not month_days:
        return (1 << length) - 1
    days = 0
    for day in month_days:
        if abs(day) <= length:
            days |= 1 << (day - 1 if day > 0 else length + day)
    return 1 << (days.bit_length() - 1) if only_last and days else days


@cache
def _weekday(calendar: int, in_months: bool, ordinal: int, weekday: int) -> int:
    """The days of a calendar that are the weekday with this ordinal."""
    leap = calendar >= 7
    days = 0
    for begin, length in MONTHS[leap] if in_months else ((0, 365 + leap),):
        first = (weekday - calendar - begin) % 7
        those = range(first, length, 7)
        if ordinal and abs(ordinal) <= len(those):
            those = those[ordinal - 1 : ordinal] if ordinal > 0 else those[ordinal:][:1]
        elif ordinal:
            continue
        for day in those:
            days |= 1 << (begin + day)
    return days

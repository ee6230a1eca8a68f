"""Counts of a user's live tasks, all of one moment: one statement, whatever there is to count."""

from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import text

from ..db.models import PRIORITIES
from ..db.session import Session
from .dates import midnight

DAYS = 30
NUMBERS = ("total", "completed", "overdue", "due_today", *PRIORITIES)

# Days are told apart by when each begins in the user's time zone, so PostgreSQL needs to know no time zones. Tasks that
# count alike are put together first: all but categories and tags from an index alone, and each set of tags is taken
# apart once.
COUNTS = text("""
        WITH kinds AS (
            SELECT completed, priority,
                   coalesce(NOT completed AND (due_at < :now OR due_on < :today), false) AS overdue,
                   coalesce(
                       NOT completed AND (due_at >= :midnight AND due_at < :next_midnight OR due_on = :today), false
                   ) AS due_today,
                   CASE WHEN completed_at >= :since THEN
                       width_bucket(completed_at, CAST(:midnights AS timestamptz[]))
                   END AS day,
                   count(*) AS number
            FROM tasks WHERE tasks.user_id = :owner AND deleted_at IS NULL
            GROUP BY 1, 2, 3, 4, 5
        ), labels AS (
            SELECT category, tags, tag_keys, count(*) AS number
            FROM tasks
            WHERE tasks.user_id = :owner AND deleted_at IS NULL AND (category IS NOT NULL OR tags <> '{}')
            GROUP BY 1, 2, 3
        )
        SELECT sum(number) AS total,
               sum(number) FILTER (WHERE completed) AS completed,
               sum(number) FILTER (WHERE overdue) AS overdue,
               sum(number) FILTER (WHERE due_today) AS due_today,
               sum(number) FILTER (WHERE priority = 1) AS low,
               sum(number) FILTER (WHERE priority = 2) AS medium,
               sum(number) FILTER (WHERE priority = 3) AS high,
               (SELECT jsonb_object_agg(category, number) FROM (
                   SELECT category, sum(number) AS number FROM labels WHERE category IS NOT NULL GROUP BY category
               ) AS by_category) AS categories,
               (SELECT jsonb_object_agg(tag, number) FROM (
                   SELECT min(tag COLLATE "C") AS tag, sum(number) AS number
                   FROM labels, unnest(tags, tag_keys) AS t (tag, key) GROUP BY key
               ) AS by_tag) AS tags,
               (SELECT jsonb_object_agg(day, number) FROM (
                   SELECT day, sum(number) AS number FROM kinds WHERE day IS NOT NULL GROUP BY day
               ) AS by_day) AS days
        FROM kinds
    """)


def count_tasks(session: Session, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    """As the schema Stats (`api/stats.py`) has them; `completed_per_day` covers the last DAYS days, today included."""
    today = now.astimezone(zone).date()
    days = [today - timedelta(days=DAYS - 1 - number) for number in range(DAYS)]
    midnights = [midnight(day, zone) for day in days]
    values: dict[str, Any] = {
        "midnight": midnights[-1],
        "next_midnight": midnight(today + timedelta(days=1), zone),
        "since": midnights[0],
    }
    values |= {"owner": session.owner, "now": now, "today": today, "midnights": midnights}
    row = session.execute(COUNTS, values).one()
    # Sums are numbers of any size to PostgreSQL, and null where there is nothing to add.
    number = {name: int(getattr(row, name) or 0) for name in NUMBERS}
    return {
        "total": number["total"],
        "completed": number["completed"],
        "pending": number["total"] - number["completed"],
        "overdue": number["overdue"],
        "due_today": number["due_today"],
        "by_priority": {name: number[name] for name in PRIORITIES},
        "by_category": row.categories or {},
        "by_tag": row.tags or {},
        "completed_per_day": {day.isoformat(): (row.days or {}).get(str(n), 0) for n, day in enumerate(days, 1)},
    }

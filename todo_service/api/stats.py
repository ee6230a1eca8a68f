"""Counts of a user's live tasks, all of one moment: one statement, whatever there is to count."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response
from marshmallow import fields
from sqlalchemy import text

from ..db.models import PRIORITIES
from ..db.session import Session
from ..http.authentication import bearer
from ..http.conditions import answer
from ..schemas.dialect import shapes
from ..schemas.parameters import TimeZoneQuery
from ..tasks.dates import midnight
from .blueprint import Blueprint

DAYS = 30
NUMBERS = ("total", "completed", "overdue", "due_today", *PRIORITIES)

blueprint = Blueprint("stats", description="Counts of a user's tasks.")


class ByPriority(ma.Schema):
    low = fields.Integer(required=True, metadata={"example": 2})
    medium = fields.Integer(required=True, metadata={"example": 5})
    high = fields.Integer(required=True, metadata={"example": 1})


class Stats(ma.Schema):
    total = fields.Integer(required=True, metadata={"example": 8})
    completed = fields.Integer(required=True, metadata={"example": 3})
    pending = fields.Integer(required=True, metadata={"example": 5})
    overdue = fields.Integer(required=True, metadata={"description": "Open and late.", "example": 1})
    due_today = fields.Integer(required=True, metadata={"description": "Open and due today.", "example": 2})
    by_priority = fields.Nested(ByPriority, required=True)
    by_category = fields.Dict(
        fields.String(), fields.Integer(), required=True, metadata={"example": {"Groceries": 3, "Garden": 1}}
    )
    by_tag = fields.Dict(
        fields.String(), fields.Integer(), required=True, metadata={"example": {"shopping": 4, "home": 1}}
    )
    completed_per_day = fields.Dict(
        fields.Date(),
        fields.Integer(),
        required=True,
        metadata={"description": "For each of the last 30 days, today included.", "example": {"2026-11-20": 3}},
    )


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


@blueprint.get("/tasks/stats")
@bearer
@blueprint.arguments(TimeZoneQuery(), location="query")
@blueprint.response(200, Stats)
def get_stats(session: Session, query: dict[str, Any]) -> Response:
    """Count tasks

    Those in the trash don't count. Days begin and end in the time zone `tz`.
    """
    return answer(shapes().counts(stats(session, datetime.now(UTC), query["tz"])))


def stats(session: Session, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    """The counts as the schema Stats describes them; `completed_per_day` covers the last DAYS days, today included."""
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

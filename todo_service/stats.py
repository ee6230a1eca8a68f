"""Counts of a user's live tasks, all of one moment: one statement, whatever there is to count."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import marshmallow as ma
from flask import Response
from marshmallow import fields
from sqlalchemy import text

from .auth import bearer
from .blueprint import Blueprint
from .db import Query, database
from .dues import midnight
from .etags import answer
from .parameters import time_zone

DAYS = 30

blueprint = Blueprint("stats", description="Counts of a user's tasks.")


class StatsQuery(ma.Schema):
    tz = time_zone()


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
    by_tag = fields.Dict(
        fields.String(), fields.Integer(), required=True, metadata={"example": {"shopping": 4, "home": 1}}
    )
    completed_per_day = fields.Dict(
        fields.Date(),
        fields.Integer(),
        required=True,
        metadata={"description": "For each of the last 30 days, today included.", "example": {"2026-11-20": 3}},
    )


# Days are told apart by when each begins in the user's time zone, so PostgreSQL needs to know no time zones.
COUNTS = Query(
    text("""
        WITH mine AS (SELECT * FROM tasks WHERE tasks.user_id = :owner AND deleted_at IS NULL)
        SELECT count(*),
               count(*) FILTER (WHERE completed),
               count(*) FILTER (WHERE NOT completed AND (due_at < :now OR due_on < :today)),
               count(*) FILTER (
                   WHERE NOT completed AND (due_at >= :midnight AND due_at < :next_midnight OR due_on = :today)
               ),
               count(*) FILTER (WHERE priority = 1),
               count(*) FILTER (WHERE priority = 2),
               count(*) FILTER (WHERE priority = 3),
               (SELECT jsonb_object_agg(tag, number) FROM (
                   SELECT min(tag COLLATE "C") AS tag, count(*) AS number
                   FROM mine, unnest(tags, tag_keys) AS t (tag, key) GROUP BY key
               ) AS by_tag),
               (SELECT jsonb_object_agg(day, number) FROM (
                   SELECT width_bucket(completed_at, CAST(:midnights AS timestamptz[])) AS day, count(*) AS number
                   FROM mine WHERE completed_at >= :since GROUP BY 1
               ) AS by_day)
        FROM mine
    """)
)


@blueprint.get("/tasks/stats")
@bearer
@blueprint.arguments(StatsQuery(), location="query")
@blueprint.response(200, Stats)
def get_stats(owner: str, query: dict[str, Any]) -> Response:
    """Count tasks

    Those in the trash don't count. Days begin and end in the time zone `tz`.
    """
    return answer(stats(owner, datetime.now(UTC), query["tz"]))


def stats(owner: str, now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    """The counts as the schema Stats describes them; `completed_per_day` covers the last DAYS days, today included."""
    today = now.astimezone(zone).date()
    days = [today - timedelta(days=DAYS - 1 - number) for number in range(DAYS)]
    midnights = [midnight(day, zone) for day in days]
    values = {
        "midnight": midnights[-1],
        "next_midnight": midnight(today + timedelta(days=1), zone),
        "since": midnights[0],
    }
    [row] = database().read(owner, COUNTS, now=now, today=today, midnights=midnights, **values)
    total, completed, overdue, due_today, low, medium, high, tags, per_day = row
    return {
        "total": total,
        "completed": completed,
        "pending": total - completed,
        "overdue": overdue,
        "due_today": due_today,
        "by_priority": {"low": low, "medium": medium, "high": high},
        "by_tag": tags or {},
        "completed_per_day": {day.isoformat(): (per_day or {}).get(str(n), 0) for n, day in enumerate(days, 1)},
    }

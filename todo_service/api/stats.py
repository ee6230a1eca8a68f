"""Counts of a user's live tasks. How they are counted is left to `tasks/counts.py`."""

from datetime import UTC, datetime
from typing import Any

import marshmallow as ma
from flask import Response
from marshmallow import fields

from ..db.session import Session
from ..http.authentication import bearer
from ..http.conditions import answer
from ..schemas.dialect import shapes
from ..schemas.parameters import TimeZoneQuery
from ..tasks.counts import count_tasks
from .blueprint import Blueprint

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


@blueprint.get("/tasks/stats")
@bearer
@blueprint.arguments(TimeZoneQuery(), location="query")
@blueprint.response(200, Stats)
def get_stats(session: Session, query: dict[str, Any]) -> Response:
    """Count tasks

    Those in the trash don't count. Days begin and end in the time zone `tz`.
    """
    return answer(shapes().counts(count_tasks(session, datetime.now(UTC), query["tz"])))

"""Is the service alive, and can it serve? For the load balancer, the container's health check and the operator."""

from flask import Blueprint, Response
from sqlalchemy import literal, select

from .db import Query, database
from .etags import answer

blueprint = Blueprint("health", __name__, url_prefix="/health")

PING = Query(select(literal(1)))


@blueprint.get("/live")
def live() -> Response:
    """The process answers; says nothing of the database, so that its outage restarts no containers."""
    return answer({"status": "ok"})


@blueprint.get("/ready")
def ready() -> Response:
    """The database answers too; otherwise 503, and no traffic should come here."""
    database().unscoped(PING)
    return answer({"status": "ok"})

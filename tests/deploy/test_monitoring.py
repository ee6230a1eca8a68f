"""Prometheus' configuration, its alerts and Grafana's dashboard, on the numbers of the service as it is shipped."""

import json
import math
import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg2
import pytest
import yaml  # type: ignore[import-untyped]

from tests.conftest import SECRET, token, wait_for
from tests.support.keyserver import KeyServer
from tests.support.live import Connection, Service
from tests.support.pages import commands
from tests.support.prometheus import FILES, Prometheus, program
from todo_service.config import ROOT

TOKEN = secrets.token_urlsafe(24)
PAGE = (ROOT / "docs/metrics.md").read_text()
LISTED = dict(re.findall(r"^\| `(\w+)` \| \w+ \|(.*?)\|", PAGE, re.MULTILINE))
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load((FILES / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
# What Grafana puts in by itself.
FILLED_IN = {"$__rate_interval": "1m", "$instance": ".*"}
# What is nothing where nobody waits, and nothing is overdue.
MAY_BE_ZERO = ("Connections-A", "Waiting-B", "Overdue for the purge-A")


def filled_in(expression: str) -> str:
    for name, value in FILLED_IN.items():
        expression = expression.replace(name, value)
    return expression


TARGETS = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
QUERIES = {
    f"{panel['title']}-{target['refId']}": filled_in(target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
}


@pytest.fixture(scope="module")
def watched(database_url: str) -> Iterator[Prometheus]:
    """A Prometheus that has asked a service under load, in which everything has happened that is measured."""
    program("prometheus")
    with KeyServer() as keys:
        key = keys.add("EdDSA")
        origin = keys.url.removesuffix("/jwks")
        settings: dict[str, Any] = dict(
            METRICS_TOKEN=TOKEN,
            RATELIMIT_DEFAULT="150/minute",
            WEB_CONCURRENCY="1",
            BETTER_AUTH_URL=origin,
            BETTER_AUTH_JWKS_URL=keys.url,
            BETTER_AUTH_SESSIONS="on",
        )
        with Service(database_url, SECRET, **settings) as service, Prometheus(service, TOKEN) as prometheus:
            signed = key.sign({"sub": "carol", "exp": int(time.time()) + 600, "iss": origin, "aud": origin})
            users = [f"{name}-{secrets.token_hex(4)}" for name in ("alice", "bob", "dave")]
            # It takes some seconds to look for whom to ask.
            wait_for(lambda: prometheus.query("up == 1"), "the service is not up")
            # Each twice and some seconds apart, as rates tell of changes.
            for _ in range(2):
                with ThreadPoolExecutor(8) as clients:
                    list(clients.map(lambda user: work(service, token(user), 30), users * 2))
                    list(clients.map(lambda _: work(service, token(users[0]), 5), range(8)))
                work(service, signed, 3)
                work(service, "x" * 32, 1)
                refuse(service)
                wait_for_a_lock(service, database_url)
                time.sleep(2.5)
            # A scrape may come too late on a busy machine, and is none then.
            wait_for(lambda: prometheus.query("up == 1"), "the service is not up any more")
            prometheus.now = time.time()
            yield prometheus


def work(service: Service, bearer: str, times: int) -> None:
    with Connection(service.url, bearer) as client:
        for number in range(times):
            created = client.request("POST", "/api/tasks", {"title": f"{number}"})
            client.request("GET", "/api/tasks")
            if created.status == 201:
                client.request("PATCH", f"/api/tasks/{created.json['id']}", {"completed": True})


def refuse(service: Service) -> None:
    """A token that is none, a path that is none, and more than a minute's requests."""
    bearer = token(f"eve-{secrets.token_hex(4)}")
    with Connection(service.url, token("mallory", exp=1)) as stranger, Connection(service.url, bearer) as eve:
        for path in ("/api/tasks", "/no/such/path"):
            stranger.request("GET", path)
        statuses = [eve.request("GET", "/api/tasks").status for _ in range(160)]
    assert statuses[-1] == 429


def wait_for_a_lock(service: Service, database_url: str) -> None:
    """Changes of a user run into their deadline, or into each other."""
    user = f"frank-{secrets.token_hex(4)}"
    work(service, token(user), 1)
    with closing(psycopg2.connect(database_url)) as other, other.cursor() as cursor:
        cursor.execute("SELECT 1 FROM owners WHERE user_id = %s FOR UPDATE", (user,))
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(lambda _: work(service, token(user), 1), range(4)))


def test_the_service_is_found_and_up(watched: Prometheus) -> None:
    [up] = watched.query('up{job="todo_service"}')
    assert up["value"][1] == "1"
    [count] = watched.query('sum(todo_requests_total{route="/api/tasks", status="201"})')
    assert float(count["value"][1]) > 100


@pytest.mark.parametrize("name", QUERIES)
def test_dashboards_query(watched: Prometheus, name: str) -> None:
    """Each has an answer, whose numbers are numbers; what happened is more than nothing."""
    numbers = [float(found["value"][1]) for found in watched.query(QUERIES[name])]
    assert numbers
    assert not all(map(math.isnan, numbers))
    assert any(number > 0 for number in numbers) or name in MAY_BE_ZERO


def test_dashboard_is_whole(watched: Prometheus) -> None:
    """Its panels don't overlap, and have a legend for whatever they show."""
    panels = DASHBOARD["panels"]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    for target in TARGETS:
        named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        for found in watched.query(filled_in(target["expr"])):
            assert set(found["metric"]) == named, target


def test_alerts_are_loaded_and_quiet(watched: Prometheus) -> None:
    """Prometheus takes them all; nothing that was done to the service was a bug, and the rest was over soon."""
    wait_for(lambda: all(rule["health"] == "ok" for rule in rules(watched)), "rules are not evaluated")
    assert [rule["name"] for rule in rules(watched)] == [rule["alert"] for rule in RULES]
    firing = {alert["labels"]["alertname"] for alert in watched.get("alerts")["alerts"] if alert["state"] == "firing"}
    assert not firing


def rules(prometheus: Prometheus) -> list[dict[str, Any]]:
    [group] = prometheus.get("rules")["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_only_what_is_measured_is_asked_for() -> None:
    """The metrics and labels of all queries are listed in docs/metrics.md."""
    expressions = [rule["expr"] for rule in RULES] + [target["expr"] for target in TARGETS]
    own = {"instance", "job", "le"}
    for expression in expressions:
        for name, matchers in re.findall(r"(todo_\w+)(?:{(.*?)})?", expression.replace('"todo_service"', "")):
            listed = name if name in LISTED else re.sub(r"_(bucket|sum|count)$", "", name)
            assert listed in LISTED, expression
            labels = set(re.findall(r'(\w+)(?:=~|!~|!=|=)"', matchers))
            assert labels <= own | set(re.findall(r"\w+", LISTED[listed])), expression


def test_the_pages_commands(watched: Prometheus) -> None:
    """Those of docs/metrics.md; promtool tries the alerts on alerts_test.yml."""
    curl, promtool = commands("metrics.md")
    asked = run(curl.replace("http://localhost:8000", watched.service.url), METRICS_TOKEN=TOKEN)
    assert "todo_requests_total{" in asked
    program("promtool")
    assert run(promtool).count("SUCCESS") == 2


def run(script: str, **environment: str) -> str:
    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_alert_is_tried_and_in_the_runbook() -> None:
    first, *others = yaml.safe_load((FILES / "alerts_test.yml").read_text())["tests"]
    names = [rule["alert"] for rule in RULES]
    assert [case["alertname"] for case in first["alert_rule_test"]] == names
    assert not any("exp_alerts" in case for case in first["alert_rule_test"])
    raised = [case["alertname"] for test in others for case in test["alert_rule_test"] if case["exp_alerts"]]
    assert raised == names
    runbook = (ROOT / "docs/runbook.md").read_text()
    parts = re.findall(r"^## (\w+)\n\n(.*?)(?=^## |\Z)", runbook, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in parts] == names
    for rule, (name, text) in zip(RULES, parts, strict=True):
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert re.findall(r"^- \*\*(.*?)\*\*: \S", text, re.MULTILINE) == ["Symptom", "Cause", "What to do"], name

"""Prometheus as it is deployed, for tests: deploy/prometheus/prometheus.yml, asking a running service.

    with Prometheus(service, token) as prometheus:
        prometheus.query("up")

It is Debian's Prometheus that the tests run; where it isn't installed they skip and say so.
"""

import json
import shutil
import urllib.parse
import urllib.request
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.support.live import Service
from tests.support.program import Program
from tests.support.servers import free_port
from todo_service.config import ROOT

FILES = ROOT / "deploy" / "prometheus"
# How often it asks and looks after alerts here.
EVERY = 1


def program(name: str) -> str:
    """`prometheus` or `promtool`; skips the test where it is missing."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package: prometheus)")
    return found


class Prometheus(Program):
    """A server that asks `service` with `token` each second. A context manager.

    Queries are of the moment `now`, in seconds since 1970; None: of when they are made.
    """

    name = "Prometheus"
    start_seconds = 20
    now: float | None = None

    def __init__(self, service: Service, token: str) -> None:
        super().__init__()
        self.service = service
        self.port = free_port()
        shutil.copy(FILES / "alerts.yml", self._folder)
        (self._folder / "token").write_text(f"{token}\n")
        (self._folder / "prometheus.yml").write_text(yaml.safe_dump(self._configuration(service)))
        argv = [
            program("prometheus"),
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self.start(argv)

    def answers(self) -> None:
        urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2).close()

    def _configuration(self, service: Service) -> Any:
        """That of deploy/, but for where and how often it asks, and where the token is."""
        configuration = yaml.safe_load((FILES / "prometheus.yml").read_text())
        configuration["global"] = dict.fromkeys(configuration["global"], f"{EVERY}s")
        [job] = configuration["scrape_configs"]
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{service.port}"]}]
        job["authorization"]["credentials_file"] = "token"
        return configuration

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What `expression` is now: each with its labels (`metric`) and its `value`, a time and a number as text."""
        asked = {"query": expression} | ({"time": str(self.now)} if self.now else {})
        found: list[dict[str, Any]] = self.get(f"query?{urllib.parse.urlencode(asked)}")["result"]
        return found

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v1/{path}", timeout=10) as response:
            return json.load(response)["data"]

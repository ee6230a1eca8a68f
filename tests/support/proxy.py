"""nginx as it is deployed, for tests: deploy/nginx.conf in front of a running service, on a free local port.

    with Proxy(service) as proxy:       # proxy.port, proxy.url, proxy.log
        ...

It is Debian's nginx that the tests run; where it isn't installed they skip and say so.
"""

import os
import re
import shutil
import socket
from pathlib import Path

import pytest

from tests.conftest import ORIGIN
from tests.support.live import Service
from tests.support.program import Program
from tests.support.servers import certificate, free_port
from todo_service.config import ROOT

DEPLOY = ROOT / "deploy"


class Proxy(Program):
    """nginx in front of `services`. `port` is that of plain HTTP, `tls_port` of TLS. A context manager."""

    name = "nginx"

    def __init__(self, *services: Service) -> None:
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("nginx is not installed (Debian package: nginx-light)")
        super().__init__()
        # nginx's workers have another user, if it is started by root.
        self._folder.chmod(0o755)
        self.port = free_port()
        # Neither is taken yet, so the next free one may be the same.
        while (tls_port := free_port()) == self.port:
            pass
        self.tls_port = tls_port
        self.url = f"http://127.0.0.1:{self.port}"
        values = {
            # What nginx makes of a name with an address for each.
            "UPSTREAM": " max_fails=0; server ".join(f"127.0.0.1:{service.port}" for service in services),
            "PORT": f"127.0.0.1:{self.port}",
            "CORS_ORIGINS": f"{ORIGIN}, https://other.test",
            "SCRATCH": str(self._folder),
        }
        text = re.sub(r"\$\{([A-Z_]+)\}", lambda name: values[name[1]], (DEPLOY / "nginx.conf").read_text())
        (self._folder / "nginx.conf").write_text(text)
        tls = self._folder / "tls"
        tls.mkdir()
        certificate(tls)
        (tls / "tls.conf").write_text((DEPLOY / "tls.conf").read_text().replace("8443", f"127.0.0.1:{self.tls_port}"))
        self.start([program, "-p", self._folder, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"])

    def answers(self) -> None:
        socket.create_connection(("127.0.0.1", self.port), 1).close()

    @property
    def certificate(self) -> Path:
        return self._folder / "tls" / "tls.crt"

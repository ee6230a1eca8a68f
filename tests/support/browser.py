"""A real browser for tests: Debian's Chromium without a window, and a frontend's page for it to stand on.

What is served and what is expected of it is left to the tests. Without Chromium the tests that need it are skipped.
"""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, sync_playwright

# Playwright itself adds --headless, --no-sandbox (CI runs as root) and a new, empty profile, which it removes again.
ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; skips the test on a machine that has none."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Chromium is missing: install the Debian package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=ARGUMENTS, headless=True, chromium_sandbox=False
        )
        yield browser
        browser.close()


class Page(BaseHTTPRequestHandler):
    """An empty page at every address."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>A frontend</title>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def frontend() -> Iterator[int]:
    """A web server on a free local port: the port. As localhost and as 127.0.0.1 it is two origins."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()

"""A real Better Auth server for tests: start it, sign users up, collect every kind of token it issues.

The server itself is ``better_auth/server.mjs`` beside this module; here is what runs it and what talks to it the way a
browser would, cookies and ``Origin`` included. Nothing is verified here, so a test that trusts a token has had the
service under test check it. When to start and stop, and what to do on a machine without Node.js, is left to the
fixtures; tokens that Better Auth would never issue (forged, expired, malformed) are left to the tests.
"""

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import tempfile
import time
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any, Self
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener

from tests.support.servers import free_port

SERVER = Path(__file__).with_name("better_auth")
LOCK_FILE = SERVER / "package-lock.json"
INSTALLED = SERVER / "node_modules" / ".package-lock.json"
INSTALL_SECONDS = 300
READY_SECONDS = 30
REQUEST_SECONDS = 10


class NodeMissingError(RuntimeError):
    """Node.js or npm is not on PATH: the one failure that is the machine's and not the code's, hence fit for a skip."""


class Issuer:
    """A Better Auth server on a loopback port, with its users and keys in memory.

    ``origin`` is its base URL, and so the ``iss`` and ``aud`` of its tokens. Every start, also on the same port, begins
    without users and with new keys.
    """

    def __init__(self, secret: str, port: int) -> None:
        self.secret = secret
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"
        self.jwks_url = f"{self.origin}/api/auth/jwks"
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(cls, secret: str) -> Self:
        """Return an issuer that is ready for requests and signs HS256 tokens with ``secret``.

        Raises NodeMissingError without Node.js or npm, and RuntimeError with the program's output if the packages can't
        be installed or the server doesn't come up.
        """
        install()
        # Known before the server starts, because the port is part of the base URL and so of every token's `iss`.
        issuer = cls(secret, free_port())
        issuer.start_again()
        return issuer

    def start_again(self) -> None:
        """Start the server on the port it had before; one that still runs is stopped first.

        Use no session from before the restart: its user is gone, yet the signed cache cookie is honoured for 5 minutes.
        """
        self.stop()
        # A file, not a pipe: nobody would read the pipe later, and a full one blocks the server.
        with tempfile.TemporaryFile() as log:
            self._process = subprocess.Popen(
                [_executable("node"), "server.mjs"],
                cwd=SERVER,
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
            try:
                _wait_until_ready(self._process, log.fileno())
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """Stop the server; connections to its port are refused from here on. Harmless when it is down already."""
        if self._process is None:
            return
        # Everything it holds is in memory: there is nothing to shut down in good order.
        with self._process as process:
            process.kill()
        self._process = None

    def sign_up(self, name: str) -> "Session":
        """Create a user with this display name, never one who exists already, and return their signed-in session."""
        return Session(self.origin, name)

    def rotate(self) -> None:
        """Let the next EdDSA token be signed with a new key; the keys before it stay in the JWKS, as in production."""
        _Browser(self.origin).send("POST", "/rotate")

    def _environment(self) -> dict[str, str]:
        # Not the whole environment: Better Auth reads BETTER_AUTH_SECRETS, BETTER_AUTH_URL and NODE_ENV by itself, and
        # a developer's shell or another test may have set them.
        return {"PATH": os.environ.get("PATH", ""), "PORT": str(self.port), "BETTER_AUTH_SECRET": self.secret}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.stop()


class Session:
    """One signed-in user. Each method returns a credential that some frontend sends as its bearer token."""

    def __init__(self, origin: str, name: str) -> None:
        self._browser = _Browser(origin)
        self.name = name
        # Unique addresses let any number of tests sign up an "alice" with one server.
        self.email = f"{secrets.token_hex(8)}@example.com"
        form = {"name": name, "email": self.email, "password": secrets.token_urlsafe()}
        signed_up = self._browser.send("POST", "/api/auth/sign-up/email", form)
        self.user_id: str = signed_up["user"]["id"]
        self._session_token: str = signed_up["token"]

    def eddsa(self) -> str:
        """The JWT of ``authClient.token()``: EdDSA, to be verified with the JWKS."""
        return self._token("/api/auth/token")

    def hs256(self) -> str:
        """The JWT of a hand-written Next.js route: HS256 under the secret, without ``iss`` and ``aud``."""
        return self._token("/hs256/sdk")

    def hs256_plugin(self) -> str:
        """The JWT of the plugin's custom ``jwt.sign``: HS256 under the secret, with ``iss`` and ``aud``."""
        return self._token("/hs256/plugin")

    def session_cookie_jwt(self) -> str:
        """The session cache cookie, an HS256 JWT that names the user in ``user.id`` instead of ``sub``."""
        # The cookie lives for 5 minutes only; a browser gets a new one the same way.
        self._browser.send("GET", "/api/auth/get-session")
        return self._browser.cookie("better-auth.session_data")

    def opaque(self) -> str:
        """The session token as sign-up returns it: no JWT, and meaningful to Better Auth alone."""
        return self._session_token

    def opaque_signed(self) -> str:
        """The session token as the cookie holds it, ``token.signature``, percent-encoded."""
        return self._browser.cookie("better-auth.session_token")

    def sign_out(self) -> None:
        """End the session; Better Auth forgets its token at once."""
        self._browser.send("POST", "/api/auth/sign-out", {})

    def _token(self, path: str) -> str:
        return str(self._browser.send("GET", path)["token"])


class _Browser:
    """HTTP with a cookie jar, from a page of the issuer's own origin."""

    def __init__(self, origin: str) -> None:
        self._origin = origin
        self._cookies = CookieJar()
        # A proxy from the environment could not reach this machine's loopback address.
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(self._cookies))

    def send(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        """Return the parsed JSON of the answer; any status but 2xx raises urllib's HTTPError."""
        # Better Auth refuses a POST that carries cookies but no trusted Origin.
        headers = {"Origin": self._origin, "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(self._origin + path, data, headers, method=method)
        with self._opener.open(request, timeout=REQUEST_SECONDS) as response:
            return json.load(response)

    def cookie(self, name: str) -> str:
        return {cookie.name: cookie.value or "" for cookie in self._cookies}[name]


def install() -> None:
    """Install the locked npm packages, unless that was done since the lock file last changed."""
    npm = _executable("npm")
    with LOCK_FILE.open() as turn:
        # npm ci begins by deleting node_modules, so test processes side by side have to take turns.
        fcntl.flock(turn, fcntl.LOCK_EX)
        if _is_installed():
            return
        # None of the packages needs an install script, so none that appears later gets to run one.
        command = [npm, "ci", "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(
            command,
            cwd=SERVER,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    if done.returncode != 0:
        raise RuntimeError(f"npm ci failed in {SERVER}:\n{done.stderr}")


def _is_installed() -> bool:
    # npm writes its own copy of the lock file last, so an interrupted installation does not count.
    return INSTALLED.exists() and INSTALLED.stat().st_mtime >= LOCK_FILE.stat().st_mtime


def _executable(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise NodeMissingError(
            f"{name} is not on PATH: the Better Auth issuer needs Node.js 20.19 or newer and npm"
            " (Debian packages: nodejs, npm)"
        )
    return path


def _wait_until_ready(process: subprocess.Popen[bytes], log: int) -> None:
    """Wait for the server's "ready" line in the log; RuntimeError, with the log, when it exits or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        # pread, because seeking would move the position at which the server writes, too.
        output = os.pread(log, 100_000, 0)
        if b"ready" in output.splitlines():
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the Better Auth issuer did not get ready:\n{output.decode(errors='replace')}")

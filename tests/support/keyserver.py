"""A key server on loopback for tests: it publishes keys of its own, signs with them, and fails in any way it is told.

Better Auth itself is in `issuer.py`; here is what it never does: other algorithms on demand, hostile headers, outages.
Nothing is checked when a token is made, so a token can be as wrong as a test wants it.
"""

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms
from jwt.utils import base64url_encode

MAKE: dict[str, Callable[[], Any]] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
}
SYMMETRIC = {"kty": "oct", "k": secrets.token_urlsafe(32), "kid": "secret", "alg": "HS256"}
ALGORITHMS = get_default_algorithms()


def compact(header: Mapping[str, Any], claims: Mapping[str, Any] | bytes, sign: Callable[[bytes], bytes]) -> str:
    """A token in the compact form (RFC 7515, section 7.1). Bytes are taken as the payload as they are."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    message = base64url_encode(json.dumps(header).encode()) + b"." + base64url_encode(payload)
    return (message + b"." + base64url_encode(sign(message))).decode()


@dataclass(frozen=True)
class Key:
    """A key pair under the name it is published by."""

    kid: str
    alg: str
    private: Any

    @property
    def jwk(self) -> dict[str, Any]:
        """The public half, with the members Better Auth publishes."""
        jwk: dict[str, Any] = ALGORITHMS[self.alg].to_jwk(self.private.public_key(), as_dict=True)
        return {name: value for name, value in jwk.items() if name != "key_ops"} | {"alg": self.alg, "kid": self.kid}

    @property
    def pem(self) -> bytes:
        pem: bytes = self.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    def sign(self, claims: Mapping[str, Any] | bytes, header: Mapping[str, Any] | None = None) -> str:
        """A token without `typ`, as Better Auth makes them; `header` adds to its header, or replaces in it."""
        return compact({"alg": self.alg, "kid": self.kid} | dict(header or {}), claims, self.signature)

    def signature(self, message: bytes) -> bytes:
        return bytes(ALGORITHMS[self.alg].sign(message, self.private))


class LocalServer:
    """Answers GET on loopback, each request in a thread, as `answer_to` says; `stopping` ends those that hang.

    A context manager.
    """

    def __init__(self) -> None:
        self.stopping = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # A client that has had enough closes the connection.
                with contextlib.suppress(ConnectionError):
                    server.answer_to(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    def answer_to(self, handler: BaseHTTPRequestHandler) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()


@dataclass
class KeyServer(LocalServer):
    """Publishes `keys`, and `extra` beside them, at `url`. `answer`: which of ANSWERS it gives. A context manager."""

    keys: list[Key] = field(default_factory=list)
    extra: list[Any] = field(default_factory=list)
    answer: str = "keys"
    requests: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._counting = threading.Lock()
        self.url = f"{self.origin}/jwks"

    def answer_to(self, handler: BaseHTTPRequestHandler) -> None:
        with self._counting:
            self.requests += 1
        ANSWERS[self.answer](self, handler)

    def add(self, *algorithms: str) -> Key:
        """Make and publish a key for each of these; the last one."""
        for alg in algorithms:
            self.keys.append(Key(secrets.token_urlsafe(24), alg, MAKE[alg]()))
        return self.keys[-1]

    def rotate(self) -> Key:
        """Publish one new EdDSA key in place of all the others."""
        key = self.add("EdDSA")
        self.keys = [key]
        return key

    def key(self, alg: str) -> Key:
        return next(key for key in reversed(self.keys) if key.alg == alg)

    def sign(self, alg: str, claims: Mapping[str, Any] | bytes, header: Mapping[str, Any] | None = None) -> str:
        """A token signed with the newest key for `alg`."""
        return self.key(alg).sign(claims, header)

    @property
    def jwks(self) -> bytes:
        return json.dumps({"keys": [key.jwk for key in self.keys] + self.extra}).encode()


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, content_type: str = "application/json") -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", content_type)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def publish(keys: KeyServer, handler: BaseHTTPRequestHandler) -> None:
    send(handler, 200, keys.jwks)


def redirect(keys: KeyServer, handler: BaseHTTPRequestHandler) -> None:
    """To an address where the keys are: whoever follows it gets them."""
    if handler.path == "/elsewhere":
        return publish(keys, handler)
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.send_header("Content-Length", "0")
    return handler.end_headers()


def not_http(_: KeyServer, handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-server\r\n")


def hang(keys: KeyServer, _: BaseHTTPRequestHandler) -> None:
    keys.stopping.wait()


def trickle(keys: KeyServer, handler: BaseHTTPRequestHandler, body: bytes) -> None:
    for byte in body:
        if not keys.stopping.wait(0.1):
            handler.wfile.write(bytes([byte]))


def trickle_head(keys: KeyServer, handler: BaseHTTPRequestHandler) -> None:
    """Endless, until something else is to be answered."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Padding: ")
    while keys.answer == "trickled head" and not keys.stopping.is_set():
        trickle(keys, handler, b"x")


def trickle_body(keys: KeyServer, handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    trickle(keys, handler, keys.jwks)


ANSWERS: dict[str, Callable[[KeyServer, BaseHTTPRequestHandler], None]] = {
    "keys": publish,
    "500": lambda keys, handler: send(handler, 500, b'{"error": "out of order"}'),
    "html": lambda keys, handler: send(handler, 200, b"<!doctype html><title>Sign in</title>", "text/html"),
    "redirect": redirect,
    "empty body": lambda keys, handler: send(handler, 200, b""),
    "no keys": lambda keys, handler: send(handler, 200, b'{"keys": []}'),
    "no list": lambda keys, handler: send(handler, 200, b'{"keys": {"kty": "RSA"}}'),
    "no public key": lambda keys, handler: send(handler, 200, json.dumps({"keys": [SYMMETRIC]}).encode()),
    "a list": lambda keys, handler: send(handler, 200, b"[]"),
    "nested": lambda keys, handler: send(handler, 200, b"[" * 50_000),
    "too long": lambda keys, handler: send(handler, 200, b" " * 1_000_000 + keys.jwks),
    "cut": lambda keys, handler: send(handler, 200, keys.jwks[:-20]),
    "not http": not_http,
    "hang": hang,
    "trickled head": trickle_head,
    "trickled body": trickle_body,
}

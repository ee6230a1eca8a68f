"""Token -> owner: the only module that knows what a token is, and what it may hold.

The token's `alg` picks the keys: HS256 means the shared secrets, the asymmetric ones mean the key server's, and never
the other way round (RFC 8725, section 3.1). What is accepted is decided here, not by the JWT library's defaults.
"""

import threading
import time
import unicodedata
from collections.abc import Collection
from typing import Any

import jwt

from ...config import Settings
from ...errors import Unauthorized
from .keys import ASYMMETRIC, KeyServer
from .sessions import SessionServer, looks_like_one

SESSION_TYPE = "better-auth.session-cache+jwt"
SESSION_AUDIENCE = "better-auth:session-cache"
TYPES = frozenset({"JWT", "AT+JWT", SESSION_TYPE.upper()})
MAX_TOKEN = 8192
MAX_SUBJECT = 255
LAST_SECOND = 253_402_300_799  # the end of the year 9999
# A token stops working this many seconds after its key at the latest (`keys.py` says how long that may be kept).
REMEMBER_SECONDS = 300
REMEMBER_TOKENS = 10_000

SESSION_TOKEN_HINT = "this is a session token, not a JWT. Get a JWT with authClient.token() and send that"  # noqa: S105
# What a page makes of a token that isn't there: `Bearer ${token}`.
NO_TOKENS = frozenset({"undefined", "null"})
NO_TOKEN_HINT = "the app had no token yet. Wait for authClient.token(), and send its data.token"  # noqa: S105


class Authenticator:
    """Verifies tokens and remembers those it verified, bounded in number and never past their `exp`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.keys = KeyServer(settings.jwks_url) if settings.jwks_url else None
        self.sessions = SessionServer(settings.session_url, settings.threads) if settings.session_url else None
        self._known: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def owner(self, token: str) -> str:
        """The user whose token it is. Raises Unauthorized, or Unavailable when no key could be had."""
        if known := self._owner_of_known(token):
            return known
        if self.sessions and looks_like_one(token) and token not in NO_TOKENS:
            return self._owner_of_session(token, self.sessions)
        claims = self._verify(token)
        owner = subject(claims, self.settings.user_id_claims)
        self._remember(token, owner, min(claims["exp"] + self.settings.leeway, time.time() + REMEMBER_SECONDS))
        return owner

    def _owner_of_known(self, token: str) -> str | None:
        known = self._known.get(token)
        return known[0] if known and time.time() < known[1] else None

    def _owner_of_session(self, token: str, sessions: SessionServer) -> str:
        found = sessions.session(token, self._owner_of_known)
        if found is None:
            return self.owner(token)
        session, until = found
        owner = subject(session, ())
        if until <= time.time():
            raise Unauthorized("the session is over; sign in again")
        self._remember(token, owner, until)
        return owner

    def _remember(self, token: str, owner: str, until: float) -> None:
        with self._lock:
            self._known.pop(token, None)
            if len(self._known) >= REMEMBER_TOKENS:
                del self._known[next(iter(self._known))]
            self._known[token] = owner, until

    def _verify(self, token: str) -> dict[str, Any]:
        try:
            header = self._header(token)
            claims = self._signed(token, header)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise Unauthorized("the token is malformed, or its signature is not one of ours") from None
        check_times(claims, self.settings.leeway)
        self._check_party(claims, header)
        return claims

    def _header(self, token: str) -> dict[str, Any]:
        dots = token.count(".")
        if len(token) > MAX_TOKEN:
            raise Unauthorized("the token is too long")
        if token in NO_TOKENS:
            raise Unauthorized(NO_TOKEN_HINT)
        if dots < 2:
            raise Unauthorized(SESSION_TOKEN_HINT)
        if dots == 4:
            raise Unauthorized("encrypted tokens can't be read; send one from authClient.token()")
        header = jwt.get_unverified_header(token)
        kind = header.get("typ", "JWT")
        if "crit" in header or "b64" in header or not isinstance(kind, str) or kind.upper() not in TYPES:
            raise Unauthorized("the token is of a kind that is not accepted here")
        return header

    def _signed(self, token: str, header: dict[str, Any]) -> dict[str, Any]:
        """The claims, once the signature is known to be good; nothing else about them is."""
        algorithm = header.get("alg")
        if algorithm == "HS256":
            return self._signed_by_secret(token)
        if self.keys is None or not isinstance(algorithm, str) or algorithm not in ASYMMETRIC:
            raise Unauthorized("the token is signed in a way that is not accepted here")
        return unchecked(token, self.keys.key(header.get("kid"), algorithm), algorithm)

    def _signed_by_secret(self, token: str) -> dict[str, Any]:
        for secret in self.settings.secrets:
            try:
                return unchecked(token, secret, "HS256")
            except jwt.InvalidSignatureError:
                continue
        raise jwt.InvalidSignatureError

    def _check_party(self, claims: dict[str, Any], header: dict[str, Any]) -> None:
        """`iss` and `aud`: required by public key, checked under the shared secret where present (RFC 7519, 4.1)."""
        required = header["alg"] != "HS256"
        if (required or "iss" in claims) and not one_of(claims.get("iss"), self.settings.issuers):
            raise Unauthorized("the token is from another issuer than the one configured here (BETTER_AUTH_URL)")
        session = str(header.get("typ")).lower() == SESSION_TYPE
        accepted = (SESSION_AUDIENCE,) if session else self.settings.audience
        audience = claims.get("aud")
        meant = audience if isinstance(audience, list) else [audience]
        if (required or "aud" in claims) and not any(one_of(name, accepted) for name in meant):
            raise Unauthorized("the token is meant for another audience than the one configured (BETTER_AUTH_AUDIENCE)")


def one_of(name: Any, names: Collection[str]) -> bool:
    return isinstance(name, str) and name in names


def unchecked(token: str, key: Any, algorithm: str) -> dict[str, Any]:
    options: Any = {"verify_signature": True} | dict.fromkeys(
        ("verify_exp", "verify_nbf", "verify_iat", "verify_aud", "verify_iss", "verify_sub", "verify_jti"), False
    )
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=options)
    return claims


def check_times(claims: dict[str, Any], leeway: int) -> None:
    """`exp` must lie ahead, `nbf` and `iat` behind, `leeway` seconds aside; all numbers (RFC 7519, section 2)."""
    if "exp" not in claims:
        raise Unauthorized("the token has no exp: it would be valid for ever")
    now = time.time()
    for name in ("exp", "nbf", "iat"):
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
            raise Unauthorized(f"the token's {name} is not a time")
    if claims["exp"] + leeway <= now:
        raise Unauthorized("the token has expired; get a fresh one with authClient.token()")
    if max(claims.get("nbf", 0), claims.get("iat", 0)) - leeway > now:
        raise Unauthorized("the token is not valid yet; is a clock wrong?")


def subject(claims: dict[str, Any], names: tuple[str, ...]) -> str:
    """The user's id: the first of `names` that is there, else Better Auth's cached session. Raises Unauthorized.

    Never `email` or `userId`: those name the user in links for verification and password reset, signed with the secret.
    """
    named = [claims[name] for name in names if name in claims]
    value = named[0] if named else session_user(claims)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_SUBJECT or not value.strip():
        raise Unauthorized("the token does not say who its user is")
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in value):
        raise Unauthorized("the token does not say who its user is")
    return value


def session_user(claims: dict[str, Any]) -> Any:
    """The user in a `session_data` cookie, where its two halves agree on who that is."""
    user, session = claims.get("user"), claims.get("session")
    if isinstance(user, dict) and isinstance(session, dict) and user.get("id") == session.get("userId"):
        return user.get("id")
    return None

"""Who is asking: API keys, user JWTs (HS256, by the standard library), roles and scopes. No I/O.

owner > admin > developer > viewer; scopes sessions:read and sessions:write. A viewer never writes, whatever its scopes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable
from typing import Any

import msgspec

READ = "sessions:read"
WRITE = "sessions:write"
SCOPES = frozenset({READ, WRITE})
ROLES = ("owner", "admin", "developer", "viewer")
MAX_CREDENTIAL_CHARS = 8192


class Principal(msgspec.Struct, frozen=True):
    """The caller of a request."""

    user_id: str
    org_id: str
    role: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether role and scopes together allow it."""
        return scope in self.scopes and (scope == READ or self.role != "viewer")


class Authority:
    """Issues and checks credentials. Keeps hashes of API keys, never the keys; shows neither in its repr."""

    def __init__(self, org_ids: Iterable[str], jwt_secret: str | None) -> None:
        self.org_ids = list(dict.fromkeys(org_ids))
        self._keys: dict[str, tuple[bytes, Principal]] = {}
        self._secret = (jwt_secret or secrets.token_urlsafe(32)).encode()

    def add_key(self, principal: Principal, *, key: str | None = None) -> str:
        """Register an API key, a new one if none is given, and return it."""
        if key is None:
            key = f"ek_{secrets.token_hex(6)}_{secrets.token_urlsafe(24)}"
        key_id = _key_id(key)
        if not key_id:
            raise ValueError("api_key: expected the form ek_<id>_<secret>")
        self._keys[key_id] = (_digest(key), principal)
        return key

    def issue_token(self, principal: Principal, *, lifetime_seconds: float) -> str:
        """A signed JWT for the principal."""
        now = time.time()
        claims = {
            "sub": principal.user_id,
            "orgId": principal.org_id,
            "role": principal.role,
            "scopes": sorted(principal.scopes),
            "iat": int(now),
            "exp": now + lifetime_seconds,
        }
        signed = f"{_b64(msgspec.json.encode({'alg': 'HS256', 'typ': 'JWT'}))}.{_b64(msgspec.json.encode(claims))}"
        return f"{signed}.{_b64(self._sign(signed))}"

    def authenticate(self, authorization: str | None) -> Principal | str:
        """The principal of an Authorization header, or why there is none."""
        if not authorization:
            return "missing credential: send Authorization: Bearer <api key or token>"
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential or len(credential) > MAX_CREDENTIAL_CHARS:
            return "malformed Authorization header: expected Bearer <api key or token>"
        return self._check_key(credential) if credential.startswith("ek_") else self._check_token(credential)

    def _check_key(self, key: str) -> Principal | str:
        digest, principal = self._keys.get(_key_id(key), (b"", None))
        if principal is None or not hmac.compare_digest(digest, _digest(key)):
            return "unknown API key"
        return principal

    def _check_token(self, token: str) -> Principal | str:
        try:
            signed, _, signature = token.rpartition(".")
            header_part, _, claims_part = signed.partition(".")
            if msgspec.json.decode(_unb64(header_part), type=_Header).alg != "HS256":
                return "unsupported token: expected a JWT signed with HS256"
            if not hmac.compare_digest(_unb64(signature), self._sign(signed)):
                return "invalid token signature"
            claims = msgspec.json.decode(_unb64(claims_part), type=_Claims)
        except (ValueError, msgspec.MsgspecError):
            return "malformed token"
        return self._principal(claims)

    def _principal(self, claims: _Claims) -> Principal | str:
        if claims.exp <= time.time():
            return "token expired"
        if claims.org_id not in self.org_ids or claims.role not in ROLES:
            return "token names an unknown org or role"
        return Principal(claims.sub, claims.org_id, claims.role, frozenset(claims.scopes) & SCOPES)

    def _sign(self, signed: str) -> bytes:
        return hmac.digest(self._secret, signed.encode(), hashlib.sha256)

    def __repr__(self) -> str:
        return f"<Authority orgs={self.org_ids} keys={len(self._keys)}>"


class _Header(msgspec.Struct):
    alg: str


class _Claims(msgspec.Struct):
    sub: str
    org_id: str = msgspec.field(name="orgId")
    role: str
    scopes: list[str]
    exp: float


def make_principal(org_id: str, user_id: str, role: str, scopes: Iterable[str] | None) -> Principal:
    """A principal, its scopes those of the role unless given.

    Raises:
        ValueError: the role or a scope is unknown.
    """
    if role not in ROLES:
        raise ValueError(f"role: expected one of {', '.join(ROLES)}, got {role!r}")
    granted = frozenset(scopes) if scopes is not None else (frozenset({READ}) if role == "viewer" else SCOPES)
    if not granted <= SCOPES:
        raise ValueError(f"scopes: expected some of {', '.join(sorted(SCOPES))}, got {sorted(granted - SCOPES)}")
    return Principal(user_id, org_id, role, granted)


def _key_id(key: str) -> str:
    prefix, _, rest = key.partition("_")
    key_id, _, secret = rest.partition("_")
    return key_id if prefix == "ek" and secret else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)


def redacted(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers fit to be kept: without credentials."""
    hidden: Any = ("authorization", "cookie", "proxy-authorization")
    return {name: value for name, value in headers if name.lower() not in hidden}

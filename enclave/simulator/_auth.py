"""Who is asking: API keys, user JWTs (HS256, by the standard library), roles and scopes. No I/O.

The roles are owner > admin > developer > viewer. A role has scopes: a viewer may read, and all others may write too. An
API key may be given fewer scopes than its role has. A viewer never writes, whatever its scopes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Iterable, Mapping

import msgspec

from . import _checks

READ = "sessions:read"
WRITE = "sessions:write"
SCOPES = frozenset({READ, WRITE})
SCOPES_OF = {"owner": SCOPES, "admin": SCOPES, "developer": SCOPES, "viewer": frozenset({READ})}
MAX_CREDENTIAL_CHARS = 8192
CREDENTIAL_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})


class Principal(msgspec.Struct, frozen=True):
    """Who makes a request."""

    user_id: str
    """The user that a token names, or the id of an API key."""
    org_id: str
    role: str
    scopes: frozenset[str]

    def may(self, scope: str) -> bool:
        """Whether role and scopes together allow it."""
        return scope in self.scopes and (scope == READ or self.role != "viewer")


class Authority:
    """Issues and checks credentials. It keeps the hashes of API keys, never the keys, and its repr shows neither."""

    def __init__(self, org_ids: Iterable[str], jwt_secret: str | None) -> None:
        self.org_ids = list(dict.fromkeys(_checks.texts("org_ids", org_ids)))
        if not self.org_ids:
            raise ValueError("org_ids: empty. Name at least one organisation")
        self._keys: dict[str, tuple[bytes, Principal]] = {}
        self._secret = (jwt_secret or secrets.token_urlsafe(32)).encode()

    def add_key(
        self, *, org_id: str | None, role: str, scopes: Iterable[str] | None = None, key: str | None = None
    ) -> str:
        """Register an API key and return it. Without a `key` it makes a new one.

        Raises:
            ValueError: the key has another form, or the org, the role or a scope is unknown.
        """
        org_id = self._checked(org_id, role)
        granted = SCOPES_OF[role] if scopes is None else frozenset(_checks.texts("scopes", scopes))
        if not granted <= SCOPES:
            raise ValueError(f"scopes: expected some of {', '.join(sorted(SCOPES))}, got {sorted(granted - SCOPES)}")
        if key is None:
            key = f"ek_{secrets.token_hex(6)}_{secrets.token_urlsafe(24)}"
        name = key_id(key)
        if not name:
            raise ValueError("api_key: expected the form ek_<id>_<secret>")
        self._keys[name] = (_digest(key), Principal(name, org_id, role, granted))
        return key

    def issue_token(self, *, org_id: str | None, user_id: str, role: str, lifetime_seconds: float) -> str:
        """A signed JWT.

        Raises:
            ValueError: the org or the role is unknown.
        """
        if not isinstance(lifetime_seconds, (int, float)) or isinstance(lifetime_seconds, bool):
            raise TypeError(f"lifetime_seconds: expected a number of seconds, got {lifetime_seconds!r}")
        claims = _Claims(
            sub=_checks.text("user_id", user_id),
            email=f"{user_id}@example.com",
            org_id=self._checked(org_id, role),
            role=role,
            exp=int(time.time() + lifetime_seconds),
        )
        signed = f"{_b64(msgspec.json.encode({'alg': 'HS256', 'typ': 'JWT'}))}.{_b64(msgspec.json.encode(claims))}"
        return f"{signed}.{_b64(self._sign(signed))}"

    def authenticate(self, authorization: str | None) -> Principal | str:
        """The principal of an Authorization header, or a sentence that says why there is none."""
        if not authorization:
            return "missing credential: send Authorization: Bearer <api key or token>"
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential or len(credential) > MAX_CREDENTIAL_CHARS:
            return "malformed Authorization header: expected Bearer <api key or token>"
        return self._check_key(credential) if credential.startswith("ek_") else self._check_token(credential)

    def _check_key(self, key: str) -> Principal | str:
        digest, principal = self._keys.get(key_id(key), (b"", None))
        # The comparison takes the same time wherever two digests differ, so it tells nothing about a key.
        if principal is None or not hmac.compare_digest(digest, _digest(key)):
            return "unknown API key"
        return principal

    def _check_token(self, token: str) -> Principal | str:
        try:
            signed, _, signature = token.rpartition(".")
            header_part, _, claims_part = signed.partition(".")
            if msgspec.json.decode(_unb64(header_part), type=_Header).alg != "HS256":
                return "unsupported token: expected a JWT signed with HS256"
            # The claims are not even decoded before the signature is known to be ours.
            if not hmac.compare_digest(_unb64(signature), self._sign(signed)):
                return "invalid token signature"
            claims = msgspec.json.decode(_unb64(claims_part), type=_Claims)
        except (ValueError, msgspec.MsgspecError):
            return "malformed token"
        if claims.exp <= time.time():
            return "token expired"
        if claims.org_id not in self.org_ids or claims.role not in SCOPES_OF:
            return "token names an unknown org or role"
        return Principal(claims.sub, claims.org_id, claims.role, SCOPES_OF[claims.role])

    def _checked(self, org_id: str | None, role: str) -> str:
        if _checks.text("role", role) not in SCOPES_OF:
            raise ValueError(f"role: expected one of {', '.join(SCOPES_OF)}, got {role!r}")
        if org_id is None:
            return self.org_ids[0]
        if org_id not in self.org_ids:
            raise ValueError(f"org_id: expected one of {', '.join(self.org_ids)}, got {org_id!r}")
        return org_id

    def _sign(self, signed: str) -> bytes:
        return hmac.digest(self._secret, signed.encode(), hashlib.sha256)

    def __repr__(self) -> str:
        return f"<Authority orgs={self.org_ids} keys={len(self._keys)}>"


class _Header(msgspec.Struct):
    alg: str


class _Claims(msgspec.Struct, kw_only=True, rename="camel"):
    sub: str
    email: str | None = None
    org_id: str
    role: str
    exp: float


def redacted(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers without credentials, fit to be kept. Names are in lower case."""
    return {name: value for name, value in headers.items() if name not in CREDENTIAL_HEADERS}


def key_id(key: str) -> str:
    """The id in ``ek_<id>_<secret>``, or nothing for a key of another form."""
    prefix, _, rest = key.partition("_")
    name, _, secret = rest.partition("_")
    return name if prefix == "ek" and secret else ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)

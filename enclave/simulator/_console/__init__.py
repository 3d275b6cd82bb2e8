"""The console: the page that a simulator shows to a browser. It talks to the routes that every client uses.

The page, its style and its script are files beside this one, served as they are. They ask for nothing from elsewhere.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from enclave.simulator._server import Reply

_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/console.css": ("console.css", "text/css; charset=utf-8"),
    **{
        f"/{name}": (name, "text/javascript; charset=utf-8")
        for name in ("console.js", "api.js", "detail.js", "list.js", "text.js")
    },
}
_HEADERS = {
    # Whatever a workload prints, no script of it runs here, and nothing leaves for elsewhere.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

PATHS = frozenset(_FILES)
"""Where the console is served."""


@cache
def page(path: str) -> Reply:
    """The file that is served at one of `PATHS`."""
    name, content_type = _FILES[path]
    body = resources.files(__name__).joinpath(name).read_bytes()
    return Reply(body=body, headers={"content-type": content_type, **_HEADERS})

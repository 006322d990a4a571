"""The console's files: the pages at `/` and `/advise` and what they load, with headers that confine it to this gateway.

The page asks for everything it shows over the public interface.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gateway.api.kept import KeptFile

FOLDER = Path(__file__).parent / "page"
FRONT, ADVICE = "index.html", "advise.html"
PATHS = {FRONT: "/", ADVICE: "/advise"}
"""The pages by their files; what they load is under `/console`."""

MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
_HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def read_page() -> Mapping[str, KeptFile]:
    """Reads every file of the console, by its path: that of a page, or `/console/NAME` for what pages load."""
    files = (path for path in sorted(FOLDER.iterdir()) if path.suffix in MEDIA_TYPES)
    return {
        PATHS.get(path.name, f"/console/{path.name}"): KeptFile.of(
            path.read_bytes(), MEDIA_TYPES[path.suffix], _HEADERS
        )
        for path in files
    }

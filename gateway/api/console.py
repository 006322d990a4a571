"""The console's files: the pages at `/` and `/advise` and what they load, with headers that confine it to this gateway.

It knows files and HTTP caching. The page asks for everything it shows over the public interface.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.api.encodings import packed

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
    "Cache-Control": "no-cache",  # cached but revalidated: an upgrade must show its own page
    "Content-Security-Policy": "; ".join(_POLICY),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page as it is sent."""

    content: bytes
    packed: bytes
    media_type: str
    tag: str

    def is_known(self, if_none_match: str) -> bool:
        """True if the client's `If-None-Match` names this content, packed or not, so that a 304 is enough."""
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return bool({self.tag, self._tag_packed, "*"} & tags)

    def headers(self, gzip: bool) -> dict[str, str]:
        """The response headers of the file, or of its packed form, on a 304 too."""
        told = {**_HEADERS, "Vary": "Accept-Encoding", "ETag": self._tag_packed if gzip else self.tag}
        return told | {"Content-Encoding": "gzip"} if gzip else told

    @property
    def _tag_packed(self) -> str:
        return f'{self.tag[:-1]}-gzip"'


def read_page() -> Mapping[str, PageFile]:
    """Reads every file of the console, by its path: that of a page, or `/console/NAME` for what pages load."""
    files = (path for path in sorted(FOLDER.iterdir()) if path.suffix in MEDIA_TYPES)
    return {PATHS.get(path.name, f"/console/{path.name}"): _read(path) for path in files}


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    return PageFile(content, packed(content), MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')

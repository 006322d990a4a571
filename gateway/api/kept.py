"""What a client may keep and asks about again: content that changes with a version of Punctual alone, by its tag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from gateway.api.encodings import packed


@dataclass(frozen=True, slots=True)
class KeptFile:
    """One such content as it is sent, plain and packed, with its tag and its own headers."""

    content: bytes
    packed: bytes
    media_type: str
    tag: str
    own: Mapping[str, str]

    @classmethod
    def of(cls, content: bytes, media_type: str, own: Mapping[str, str]) -> Self:
        """Packs the content, and makes its tag."""
        return cls(content, packed(content), media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"', own)

    def is_known(self, if_none_match: str) -> bool:
        """True if the client's `If-None-Match` names this content, packed or not, so that a 304 is enough."""
        tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
        return bool({self.tag, self._tag_packed, "*"} & tags)

    def headers(self, gzip: bool) -> dict[str, str]:
        """The response headers of the content, or of its packed form, on a 304 too.

        It is kept but asked about again: an upgrade must show its own.
        """
        tag = self._tag_packed if gzip else self.tag
        told = {"Cache-Control": "no-cache", **self.own, "Vary": "Accept-Encoding", "ETag": tag}
        return told | {"Content-Encoding": "gzip"} if gzip else told

    @property
    def _tag_packed(self) -> str:
        return f'{self.tag[:-1]}-gzip"'

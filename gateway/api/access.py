"""From where the gateway may be asked: the hosts that it answers to, and the pages of other origins (CORS).

A page of any site can send requests to a gateway on the reader's own machine. Without `cors_origins` no such page
reads an answer. A page could still have its own name resolve to 127.0.0.1 and pass for the gateway's own (DNS
rebinding), so a gateway on loopback answers to names of loopback only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TypeAlias

from gateway.model import request
from gateway.model.errors import UnknownHost

CORS_ORIGINS = "PUNCTUAL_CORS_ORIGINS"
ALLOWED_HOSTS = "PUNCTUAL_ALLOWED_HOSTS"
"""Variables of an ingress, by which `punctual serve` hands on its options: words with spaces between them."""

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]
"""Headers as an ASGI scope has them."""

ANY = "*"
ASKED = (
    *(request.BUDGET, request.FIRST_BUDGET, request.GRPC_TIMEOUT, request.PERCENTILE, request.MODE),
    *(request.MIN_TIER, request.CHECKPOINT),
    *(request.REQUEST_ID, request.TRACEPARENT, request.TRACESTATE, "Content-Type", "Content-Encoding"),
    *("Authorization", ANY),
)
"""The headers that a page of another origin may send: by their names for browsers that know no `*`, which is any but
`Authorization`. OpenAI's clients send that, and more of their own."""

PREFLIGHT_AGE_S = 600
"""Seconds for which a browser need not ask again."""

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:[0-9]*)?")


class BadOrigin(ValueError):
    """An origin is not `scheme://host` or `scheme://host:port`, as a browser sends it."""


@dataclass(frozen=True)
class Access:
    """The origins whose pages may read answers, and the hosts that are answered; None for all hosts."""

    cors_origins: frozenset[str] = frozenset()
    hosts: frozenset[str] | None = None

    @classmethod
    def of(cls, bound: str, environ: Mapping[str, str]) -> Access:
        """The access of a gateway that is bound to this host. More hosts may be named, on any interface.

        On another interface than loopback every host is answered, unless some are named.
        """
        named = frozenset(host.lower() for host in environ.get(ALLOWED_HOSTS, "").split())
        origins = checked_origins(environ.get(CORS_ORIGINS, "").split())
        return cls(frozenset(origins), named if named or is_loopback(bound) else None)

    def check_host(self, raw_headers: RawHeaders) -> None:
        """Raises UnknownHost (421) for a name that is none of `hosts` or of loopback. HTTP/1.0 need not name any."""
        sent = next((value for name, value in raw_headers if name == b"host"), None)
        if sent is not None and not self._is_own(sent.decode("latin-1").strip()):
            raise UnknownHost

    def reads(self, origin: str) -> bool:
        """True if pages of this origin may read answers; '' is an origin that is not told, or not yet."""
        return ANY in self.cors_origins or origin in self.cors_origins

    def headers(self, raw_headers: RawHeaders) -> dict[str, str]:
        """The headers of every answer, which let a page of an allowed origin read it with all of its headers."""
        if not self.cors_origins:
            return {}
        origin = _value(raw_headers, b"origin")
        if not self.reads(origin):
            return {"Vary": "Origin"}
        allowed = ANY if ANY in self.cors_origins else origin
        return {
            "Access-Control-Allow-Origin": allowed,
            "Access-Control-Expose-Headers": ANY,
            "Timing-Allow-Origin": allowed,
            "Vary": "Origin",
        }

    def preflight(self, raw_headers: RawHeaders, methods: Sequence[str]) -> dict[str, str]:
        """What a browser is told that asks by `OPTIONS` whether a page may send a request; nothing if it may not."""
        asks = any(name == b"access-control-request-method" for name, _ in raw_headers)
        if not asks or not self.reads(_value(raw_headers, b"origin")):
            return {}
        return {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": ", ".join(ASKED),
            "Access-Control-Max-Age": str(PREFLIGHT_AGE_S),
        }

    def _is_own(self, sent: str) -> bool:
        match = _HOST.fullmatch(sent)
        name = match[1].lower().strip("[]") if match else ""
        return bool(name) and (is_loopback(name) or name in (self.hosts or ()))


def checked_origins(origins: Sequence[str]) -> Sequence[str]:
    """Returns the origins. Raises BadOrigin for one that no browser sends."""
    for origin in origins:
        if origin != ANY and not _ORIGIN.fullmatch(origin):
            raise BadOrigin(f"{origin} is no origin: it must be {ANY}, or like https://example.org, without a path")
    return origins


def is_loopback(host: str) -> bool:
    """True for `localhost`, names below it, and addresses of loopback."""
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _value(raw_headers: RawHeaders, name: bytes) -> str:
    """The first value of a header, or nothing."""
    return next((value.decode("latin-1") for one, value in raw_headers if one == name), "")

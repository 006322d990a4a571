"""What a client accepts: media types and codings with their weights, in one header line or more (RFC 9110, 12.5)."""

from __future__ import annotations

import re

_LISTED = re.compile(r"\s*([^;\s]+)\s*((?:;.*)?)")
_WEIGHT = re.compile(r";\s*q\s*=\s*([^;\s]*)")
_NUMBER = re.compile(r"[0-9]+\.?[0-9]*|\.[0-9]+")


def named(accepted: str, name: str) -> float:
    """The weight of what is accepted by its own name, in lower case; 0 where it is not named."""
    return _weights(accepted).get(name, 0.0)


def weight(accepted: str, media_type: str) -> float:
    """The weight of a media type, by its own name or else by the narrowest range that holds it."""
    weights = _weights(accepted)
    ranges = (media_type, f"{media_type.partition('/')[0]}/*", "*/*")
    return next((weights[one] for one in ranges if one in weights), 0.0)


def takes_gzip(accept_encoding: str) -> bool:
    """True if the client's `Accept-Encoding` has gzip, or all, with a weight above 0."""
    weights = _weights(accept_encoding)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def _weights(accepted: str) -> dict[str, float]:
    """Each name of a list with its weight, the greatest of several; what has a weight that is none is left out."""
    weights: dict[str, float] = {}
    for one in accepted.lower().split(","):
        if (match := _LISTED.fullmatch(one)) is None:
            continue
        told = _WEIGHT.search(match[2])
        if told is None or _NUMBER.fullmatch(told[1]):
            weights[match[1]] = max(float(told[1]) if told else 1.0, weights.get(match[1], 0.0))
    return weights

"""Vectors of texts by a starter embedder, in fp32 as torch runs it: what measurements of other tasks compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporters.kinds.embedder import source_vectors
from exporters.sources.source import resolve_source

UnitVectors: TypeAlias = NDArray[np.float64]
Vectors: TypeAlias = Callable[[Sequence[str]], UnitVectors]
"""Gives the unit vector of each text (row)."""


def vectors_of(name: str, cache: Path) -> Vectors:
    """What gives unit vectors of texts by a starter embedder. Raises NotFetched and what loading raises."""
    return cache_of(source_vectors(resolve_source(f"starter:{name}", cache=cache).path, name))


def cache_of(vectors: Vectors) -> Vectors:
    """The same vectors, each list of texts run once."""
    known: dict[tuple[str, ...], UnitVectors] = {}

    def remembered(texts: Sequence[str]) -> UnitVectors:
        key = tuple(texts)
        if key not in known:
            known[key] = vectors(texts)
        return known[key]

    return remembered

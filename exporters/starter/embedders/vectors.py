"""Vectors of texts by a starter embedder, in fp32 as torch runs it: what measurements of other tasks compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.replica.embedding import unit_length
from exporters.kinds.embedder import pooled_tokens, read_configuration, runner
from exporters.kinds.original import load_original
from exporters.sources.source import resolve_source
from exporters.verification import run_all

UnitVectors: TypeAlias = NDArray[np.float64]
Vectors: TypeAlias = Callable[[Sequence[str]], UnitVectors]
"""Gives the unit vector of each text (row)."""


def vectors_of(name: str, cache: Path) -> Vectors:
    """What gives unit vectors of texts by a starter embedder. Raises NotFetched and what loading raises."""
    whole = resolve_source(f"starter:{name}", cache=cache).path
    found = read_configuration(whole, name)
    original = load_original(whole, name, "AutoModel", "an encoder", ("pooler.",))
    original = replace(original, window=min(found.window or original.window, original.window))
    run = runner(original, pooled_tokens(original.model, found.pooling))

    def vectors(texts: Sequence[str]) -> UnitVectors:
        rows = run_all([original.encode(one) for one in texts], run, lambda share: None)
        return unit_length(rows.astype(np.float64))

    return cache_of(vectors)


def cache_of(vectors: Vectors) -> Vectors:
    """The same vectors, each list of texts run once."""
    known: dict[tuple[str, ...], UnitVectors] = {}

    def remembered(texts: Sequence[str]) -> UnitVectors:
        key = tuple(texts)
        if key not in known:
            known[key] = vectors(texts)
        return known[key]

    return remembered

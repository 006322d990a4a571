"""What the exporters must know of a kind of checkpoint to make, measure and show its variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from exporters.plan import Workbench
from exporters.profiling import Advance
from gateway.model.profile import ProfileDocument

Manifest = TypeVar("Manifest")
Opened = TypeVar("Opened")


class TitledProfile(NamedTuple):
    """A profile with what it measures, and what its rows are a number of (`batch`, `rows`)."""

    document: ProfileDocument
    measures: str
    rows: str


@dataclass(frozen=True)
class Kind(Generic[Manifest, Opened]):
    """One kind of checkpoint: by which files it is recognised, and how its variants are made.

    `name` is the kind in the manifest; `described` says it in words, article included; `task` is what it serves, and
    `engines` run it. `Manifest` and `Opened` are the manifest of its variants and what `open_variant` gives for one.
    """

    name: str
    described: str
    task: str
    engines: tuple[str, ...]
    recognises: Callable[[Path, Mapping[str, Any]], bool]
    """Whether a checkpoint is of this kind and no other, by its folder and its config.json (empty without one)."""
    make: Callable[[Workbench], Manifest]
    """Fills the bench's folder and returns the manifest, not yet written. Raises what `export` raises."""
    profile: Callable[[Opened, int, float, Advance], Manifest]
    """The manifest of an opened variant, measured anew on so many threads, within so many seconds."""
    agreement: Callable[[Manifest], Mapping[str, str]]
    """How well a variant agrees with its source: cells of a table by their titles."""
    profiles: Callable[[Manifest], Sequence[TitledProfile]]
    """The profiles of a variant, for tables."""


def share_with_floor(share: float, floor: float, texts: int) -> str:
    """A share of a number of texts, with the floor that it had to reach."""
    return f"{share:.2%} of {texts} (floor {floor:.1%})"


def rouge(value: float | None) -> str:
    """A ROUGE from 0 to 1, or a dash."""
    return "-" if value is None else f"{value:.3f}"

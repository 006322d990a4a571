"""The interface of a kind of checkpoint: how to recognise it, and how to make, measure and show its variants."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from exporters.plan import Workbench
from exporters.profiling import Advance, measure_grid, watch_here
from gateway.model.manifest import SelfTest, VariantManifest
from gateway.model.profile import ProfileDocument

Manifest = TypeVar("Manifest")
Opened = TypeVar("Opened")


class TitledProfile(NamedTuple):
    """A profile with the name of its measure and of its row axis (`batch`, `rows`)."""

    document: ProfileDocument
    measures: str
    rows: str


@dataclass(frozen=True)
class Kind(Generic[Manifest, Opened]):
    """One kind of checkpoint: how to recognise it, and how to make its variants.

    `name` is the kind in the manifest, `described` its description with an article, `task` the task that it serves
    where a plan does not say which, and `engines` those that run it. `Manifest` is the type of its manifests, `Opened`
    what `open_variant` returns.
    """

    name: str
    described: str
    task: str
    engines: tuple[str, ...]
    recognises: Callable[[Path, Mapping[str, Any]], bool]
    """True if a checkpoint is of this kind, by its folder and its config.json (empty if missing)."""
    make: Callable[[Workbench], Manifest]
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    profile: Callable[[Opened, int, float, Advance], Manifest]
    """Measures an opened variant again, on a number of threads within a number of seconds; returns its manifest."""
    agreement: Callable[[Manifest], Mapping[str, str]]
    """A variant's agreement with its source: table cells by title."""
    profiles: Callable[[Manifest], Sequence[TitledProfile]]
    """The profiles of a variant, for tables."""
    golden: Callable[[Manifest], SelfTest] | None = None
    """The golden inputs of a variant whose replicas answer by one run of an engine; such a run may be a lone one."""


def has_head(config: Mapping[str, Any], *endings: str) -> bool:
    """True if a config.json names an architecture that ends so, such as `ForMaskedLM`."""
    heads = config.get("architectures")
    return isinstance(heads, list) and any(str(head).endswith(endings) for head in heads)


def writes_anew(config: Mapping[str, Any]) -> bool:
    """True if a config.json is an encoder-decoder's, without a classification head."""
    return config.get("is_encoder_decoder") is True and not has_head(config, "ForSequenceClassification")


def profiled_in_one_pass(opened: Any, threads: int, budget_s: float, advance: Advance) -> Any:
    """The manifest of an opened variant whose engine answers in one pass, with a profile measured now on this host."""
    manifest, watch = opened.manifest, watch_here(budget_s, advance)
    profile = measure_grid(opened.engine, manifest.max_tokens, manifest.self_test, threads, watch)
    return manifest.model_copy(update={"profile": profile})


def one_profile(manifest: VariantManifest) -> Sequence[TitledProfile]:
    """The profile of a variant whose engine answers in one pass."""
    return (TitledProfile(manifest.profile, "service time", "batch"),)


def share_with_floor(share: float, floor: float, texts: int) -> str:
    """A share of a number of texts, with its floor, for a table."""
    return f"{share:.2%} of {texts} (floor {floor:.1%})"


def error_with_ceiling(error: float, ceiling: float) -> str:
    """An error with the most that it may be, for a table."""
    return f"{error:.2g} (ceiling {ceiling:.2g})"


def rouge(value: float | None) -> str:
    """A score from 0 to 1 for a table, such as ROUGE, or a dash."""
    return "-" if value is None else f"{value:.3f}"

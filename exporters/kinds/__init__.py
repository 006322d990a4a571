"""The kinds of checkpoint: one module each, registered by name in `KINDS`.

`kind` defines what a kind provides; `original` loads a checkpoint with transformers; `graphs` exports it as ONNX
graphs. None imports torch before it loads a checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from deployments.engines.host import usable_cores
from exporters.kinds.answerer import ANSWERER
from exporters.kinds.causal import CAUSAL
from exporters.kinds.classifier import CLASSIFIER
from exporters.kinds.embedder import EMBEDDER
from exporters.kinds.extractive import EXTRACTIVE
from exporters.kinds.filler import FILLER
from exporters.kinds.kind import Kind
from exporters.kinds.seq2seq import SEQ2SEQ
from exporters.kinds.tagger import TAGGER
from exporters.kinds.translator import TRANSLATOR
from exporters.sources.source import read_object
from gateway.model.manifest import VariantManifest
from gateway.tasks import tasks_of

__all__ = ["KINDS", "Kind", "kind_of", "lone_threads_here"]

KINDS: dict[str, Kind[Any, Any]] = {
    kind.name: kind
    for kind in (CLASSIFIER, EXTRACTIVE, ANSWERER, SEQ2SEQ, TRANSLATOR, CAUSAL, EMBEDDER, TAGGER, FILLER)
}
"""The kinds, by their names in manifests. The first that recognises a checkpoint, and serves its task, takes it."""


def lone_threads_here(manifest: VariantManifest, threads: int, most: int) -> int | None:
    """The threads of a variant's lone runs on this host, at most so many; None if its replicas make none.

    torch has one pool of threads for all its runs, so it has no lone ones.
    """
    here = min(most, int(usable_cores()))
    can = KINDS[manifest.kind].golden is not None and manifest.engine != "torch"
    return here if can and here > threads else None


def kind_of(path: Path, location: str, task: str | None = None) -> Kind[Any, Any]:
    """The kind of the checkpoint in a checked folder. Raises SourceRefused if its config.json is malformed.

    Of kinds that recognise it, one that serves the `task` goes first. A checkpoint that no kind recognises counts as a
    classifier; if it is none, loading it is refused.
    """
    file = path / "config.json"
    config = read_object(file, location) if file.exists() else {}
    found = [kind for kind in KINDS.values() if kind.recognises(path, config)]
    serving = [kind for kind in found if task in tasks_of(kind.name)]
    return next(iter([*serving, *found]), CLASSIFIER)

"""The kinds of checkpoint that variants are made of: one module each, registered by name in `KINDS`.

`kind` says what a kind must bring; `original` loads a checkpoint by its makers' library, `graphs` writes it as ONNX
graphs. None of them imports torch before it loads a checkpoint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporters.kinds.classifier import CLASSIFIER
from exporters.kinds.extractive import EXTRACTIVE
from exporters.kinds.kind import Kind
from exporters.kinds.seq2seq import SEQ2SEQ
from exporters.source import read_object

__all__ = ["KINDS", "Kind", "kind_of"]

KINDS: dict[str, Kind[Any, Any]] = {"classifier": CLASSIFIER, "extractive": EXTRACTIVE, "seq2seq": SEQ2SEQ}
"""By the name that manifests bear."""


def kind_of(path: Path, location: str) -> Kind[Any, Any]:
    """The kind of the checkpoint in a checked folder. Raises SourceRefused where its config.json is broken.

    What no kind recognises is taken for a classifier, and refused when it is loaded and is none.
    """
    file = path / "config.json"
    config = read_object(file, location) if file.exists() else {}
    return next((kind for kind in KINDS.values() if kind.recognises(path, config)), CLASSIFIER)

"""Opens a variant, and rejects it unless its files and answers are those that were verified.

A replica calls `open_variant` before it becomes ready. It checks the digest of every file, the processor's features,
and that each golden input still gives its token ids and its answer on this host. The manifest's kind decides what is
imported and how it is opened (`kinds`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from deployments.engines.base import Engine, Logits, TokenIds, padded
from deployments.engines.host import read_host
from deployments.replica.kinds import OpenVariant, kind_named
from gateway.model.manifest import MANIFEST_NAME, SelfTest, VariantManifest
from gateway.tasks import kind_of, read_manifest, tasks_of

Encode = Callable[[str], list[int]]

GLIMPSES = 8
"""Places of a golden input's logits that are kept, evenly spaced: all would make a manifest of megabytes."""


class VariantRejected(Exception):
    """A variant that must not serve: the checkpoint, what is wrong, what was expected and what was found.

    `open_variant` raises it. Its arguments are positional, so that it survives pickle between processes.
    """

    def __init__(self, checkpoint: str, what: str, expected: str, got: str) -> None:
        """Takes plain words, which make up the message."""
        super().__init__(checkpoint, what, expected, got)
        self.checkpoint, self.what, self.expected, self.got = checkpoint, what, expected, got

    def __str__(self) -> str:
        """Says in one sentence where to look."""
        return f"{self.checkpoint}: {self.what}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True)
class Glimpse:
    """An `Engine` over one that gives many logits: some along an axis, joined, which is what golden inputs keep.

    Axis 1 is that of tokens or masks, axis 2 that of what each of them is.
    """

    engine: Engine
    axis: int = 1

    def run(self, token_ids: TokenIds, attention_mask: TokenIds, token_types: TokenIds | None = None) -> Logits:
        """Computes some of the logits (batch, chosen)."""
        logits = self.engine.run(token_ids, attention_mask, token_types)
        places = logits.shape[self.axis]
        some = [at * (places - 1) // (GLIMPSES - 1) for at in range(GLIMPSES)]
        found: Logits = logits.take(some, axis=self.axis).reshape(len(logits), -1)
        return found


def open_variant(folder: Path, threads: int, at_once: int = 1) -> OpenVariant:
    """Checks and opens the variant in a folder, for `at_once` engine runs at a time on `threads` threads each.

    Blocking. Raises VariantRejected.
    """
    manifest = checked_manifest(folder)
    check_files(folder, manifest)
    missing = sorted(set(manifest.cpu_features) - read_host().features)
    if missing:
        raise VariantRejected(manifest.checkpoint, "the processor", " ".join(manifest.cpu_features), _without(missing))
    return kind_named(manifest.kind).open(folder, manifest, threads, at_once)


def checked_manifest(folder: Path) -> VariantManifest:
    """Reads a folder's manifest. Raises VariantRejected if it is missing, invalid, or names files elsewhere."""
    try:
        manifest = read_manifest(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise VariantRejected(folder.name, MANIFEST_NAME, "a manifest", "no such file") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise VariantRejected(folder.name, MANIFEST_NAME, "a valid manifest", f"{place}: {first['msg']}") from None
    serving = tasks_of(manifest.kind)
    if manifest.task not in serving:
        expected = f"{' or '.join(map(repr, serving))} of a variant of the kind {manifest.kind}"
        raise VariantRejected(manifest.checkpoint, f"{MANIFEST_NAME}, task", expected, repr(manifest.task))
    outside = next((name for name in manifest.files if Path(name).name != name), None)
    if outside is not None:
        raise VariantRejected(manifest.checkpoint, MANIFEST_NAME, "plain file names", repr(outside))
    return manifest


def check_tasks(manifest: VariantManifest, tasks: Sequence[str]) -> None:
    """Checks that a variant has what each of these tasks needs. Raises VariantRejected."""
    for task in tasks:
        if task not in tasks_of(manifest.kind):
            raise VariantRejected(manifest.checkpoint, f"the task {task!r}", "a kind that serves it", manifest.kind)
        missing = kind_of(manifest, task).lacks(manifest)
        if missing is not None:
            raise VariantRejected(manifest.checkpoint, f"the task {task!r}", missing, "none")


def check_files(folder: Path, manifest: VariantManifest) -> None:
    """Checks that every file of the manifest is there with its digest. Raises VariantRejected for the first other one.

    It also rejects a file that the engine or the tokenizer would open and that has no digest in the manifest.
    """
    unsigned = next((name for name in kind_named(manifest.kind).files(manifest) if name not in manifest.files), None)
    if unsigned is not None:
        raise VariantRejected(manifest.checkpoint, f"{MANIFEST_NAME}, files", f"a digest of {unsigned}", "none")
    for name, expected in manifest.files.items():
        try:
            got = file_sha256(folder / name)
        except FileNotFoundError:
            got = "no such file"
        if got != expected:
            raise VariantRejected(manifest.checkpoint, name, f"sha256 {expected}", got)


def check_answers(checkpoint: str, self_test: SelfTest, engine: Engine, encode: Encode) -> None:
    """Checks that each golden input, run alone, gives its token ids and its logits within the tolerance.

    Raises VariantRejected.
    """
    for index, golden in enumerate(self_test.golden):
        ids = checked_ids(checkpoint, index, golden.token_ids, encode(golden.text))
        batch = padded([ids], pad_id=0)
        logits = engine.run(batch.token_ids, batch.attention_mask)[0]
        near = logits.shape == (len(golden.logits),) and (
            float(np.abs(logits - np.asarray(golden.logits)).max()) <= self_test.tolerance
        )
        if not near:
            expected = f"{golden.logits} within {self_test.tolerance:.3g}"
            raise VariantRejected(checkpoint, f"golden input {index}, logits", expected, str(tuple(logits.tolist())))


def file_sha256(path: Path) -> str:
    """Computes the hex SHA-256 digest of a file. Raises FileNotFoundError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checked_ids(checkpoint: str, index: int, expected: tuple[int, ...], got: list[int]) -> list[int]:
    """Gives the token ids of a golden input if they are the expected ones. Raises VariantRejected."""
    if tuple(got) != expected:
        raise VariantRejected(checkpoint, f"golden input {index}, token ids", str(expected), str(tuple(got)))
    return got


def _without(features: list[str]) -> str:
    return f"one without {' '.join(features)}"

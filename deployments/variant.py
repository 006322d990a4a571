"""Opening a variant: nothing is served that is not, byte for byte and answer for answer, what was verified.

A replica calls `open_variant` before it becomes ready. It checks the digest of every file, that the processor has the
features the variant relies on, and that each golden input still gives its token ids and logits on this very host.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from deployments.engines.host import read_host
from deployments.engines.opening import open_engine
from deployments.engines.padding import padded
from deployments.engines.port import Engine
from deployments.tasks import ClassifyTask, Encoded, open_task
from gateway.manifest import MANIFEST_NAME, VariantManifest, read_manifest
from gateway.profile import LatencyProfile


class VariantRejected(Exception):
    """A variant that must not serve: which checkpoint, what about it, what was expected and what was found.

    Raised by `open_variant`. Its arguments are positional, so it crosses processes through pickle.
    """

    def __init__(self, checkpoint: str, what: str, expected: str, got: str) -> None:
        """Takes plain words: they make the message."""
        super().__init__(checkpoint, what, expected, got)
        self.checkpoint, self.what, self.expected, self.got = checkpoint, what, expected, got

    def __str__(self) -> str:
        """One sentence that says where to look."""
        return f"{self.checkpoint}: {self.what}: expected {self.expected}, got {self.got}"


@dataclass(frozen=True)
class OpenVariant:
    """A variant that has passed its checks, ready to run."""

    manifest: VariantManifest
    engine: Engine
    task: ClassifyTask
    profile: LatencyProfile


def open_variant(folder: Path, threads: int) -> OpenVariant:
    """The variant in a folder, checked and opened. Blocking. Raises VariantRejected."""
    manifest = checked_manifest(folder)
    check_files(folder, manifest)
    missing = sorted(set(manifest.cpu_features) - read_host().features)
    if missing:
        raise VariantRejected(manifest.checkpoint, "the processor", " ".join(manifest.cpu_features), _without(missing))
    task = open_task(folder, manifest)
    engine = open_engine(folder, manifest, threads)
    check_answers(manifest, engine, task)
    return OpenVariant(manifest, engine, task, LatencyProfile.from_document(manifest.profile))


def checked_manifest(folder: Path) -> VariantManifest:
    """The folder's manifest. Raises VariantRejected when it is missing, not one, or names files outside the folder."""
    try:
        manifest = read_manifest(folder)
    except (FileNotFoundError, NotADirectoryError):
        raise VariantRejected(folder.name, MANIFEST_NAME, "a manifest", "no such file") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise VariantRejected(folder.name, MANIFEST_NAME, "a valid manifest", f"{place}: {first['msg']}") from None
    outside = next((name for name in manifest.files if Path(name).name != name), None)
    if outside is not None:
        raise VariantRejected(manifest.checkpoint, MANIFEST_NAME, "plain file names", repr(outside))
    return manifest


def check_files(folder: Path, manifest: VariantManifest) -> None:
    """Every file of the manifest is there with its digest, or VariantRejected names the first that is not."""
    for name, expected in manifest.files.items():
        try:
            got = file_sha256(folder / name)
        except FileNotFoundError:
            got = "no such file"
        if got != expected:
            raise VariantRejected(manifest.checkpoint, name, f"sha256 {expected}", got)


def check_answers(manifest: VariantManifest, engine: Engine, task: ClassifyTask) -> None:
    """Every golden input, run alone, gives its token ids and its logits within the tolerance, or VariantRejected."""
    for index, golden in enumerate(manifest.self_test.golden):
        encoded = task.encode(golden.text, "longest_first")
        ids = tuple(encoded.token_ids) if isinstance(encoded, Encoded) else ()
        if ids != golden.token_ids:
            raise VariantRejected(
                manifest.checkpoint, f"golden input {index}, token ids", str(golden.token_ids), str(ids)
            )
        batch = padded([ids], task.pad_id)
        logits = engine.run(batch.token_ids, batch.attention_mask)[0]
        near = logits.shape == (len(golden.logits),) and (
            float(np.abs(logits - np.asarray(golden.logits)).max()) <= manifest.self_test.tolerance
        )
        if not near:
            expected = f"{golden.logits} within {manifest.self_test.tolerance:.3g}"
            raise VariantRejected(
                manifest.checkpoint, f"golden input {index}, logits", expected, str(tuple(logits.tolist()))
            )


def file_sha256(path: Path) -> str:
    """The hex digest of a file's bytes. Raises FileNotFoundError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _without(features: list[str]) -> str:
    return f"one without {' '.join(features)}"

"""The cache of variants on this machine; folder names change with everything that a variant is made from.

Finding a variant reads its manifest and hashes its files. Imports no engine library.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec

from deployments.engines.host import Host
from deployments.replica.variant import VariantRejected, check_files, checked_manifest
from exporters.errors import SourceAbsent, VariantRefused
from exporters.plan import Settings, VariantPlan, made_with, raced_with
from exporters.sources.source import digest_of, encoder_of, source_files, source_folder
from gateway.model.manifest import FORMAT


class State(StrEnum):
    """The state of a variant's folder for this host."""

    READY = "ready"
    PROFILED_ELSEWHERE = "profiled elsewhere"
    REFUSED = "refused"
    ABSENT = "absent"


class Refusal(msgspec.Struct, frozen=True):
    """A note of a refused variant, so that the next start does not make it again."""

    checkpoint: str
    variant: str
    reason: str


@dataclass(frozen=True)
class Store:
    """The cache folder: variants by checkpoint, and digests of sources."""

    root: Path

    def folder(self, plan: VariantPlan, source_sha256: str, settings: Settings | None = None) -> Path:
        """The folder of this plan's variant of this source, with the installed libraries.

        A variant with another floor than its kind's has a separate folder, so only starts with that floor find it.
        """
        parts = [source_sha256, plan.task, plan.family, plan.engine, plan.precision, str(FORMAT), str(made_with())]
        if plan.candidates:
            parts.append(raced_with(plan.candidates))
        settings = settings or Settings()
        if settings.floor is not None or settings.drop != Settings().drop:
            parts.append(f"floor {settings.floor} drop {settings.drop}")
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
        return self.root / "variants" / plan.checkpoint / f"{plan.variant}-{digest}"

    @property
    def writable(self) -> bool:
        """Whether variants can be made here. A cache that is complete may be on a disk that nobody can write."""
        return not self.root.exists() or os.access(self.root, os.W_OK)

    def knows(self, location: str, revision: str | None) -> bool:
        """True if the digest of this source has been computed before."""
        return "sha256" in _read_note(self._note(location, revision))

    def source_sha256(self, location: str, revision: str | None) -> str:
        """The digest of a source, from the cache if its files are unchanged; a pinned revision never changes.

        A missing source keeps its digest, so that an image with variants but no weights can serve. Resolves a new
        source, so it raises SourceRefused.
        """
        note = self._note(location, revision)
        known = _read_note(note)
        if revision is not None and "sha256" in known:
            return known["sha256"]
        try:
            folder = source_folder(location, revision)
            encoder = encoder_of(folder, location)
        except SourceAbsent:
            if "sha256" in known:
                return known["sha256"]
            raise
        seen = _fingerprint(folder, encoder)
        if known.get("fingerprint") != seen:
            known = {"fingerprint": seen, "sha256": digest_of(folder, encoder)}
            if self.writable:
                note.parent.mkdir(parents=True, exist_ok=True)
                beside = note.with_suffix(f".{os.getpid()}")
                beside.write_text(json.dumps(known))
                beside.replace(note)
        return known["sha256"]

    def _note(self, location: str, revision: str | None) -> Path:
        digest = hashlib.sha256(f"{location}@{revision}".encode()).hexdigest()[:16]
        return self.root / "sources" / f"{digest}.json"

    def refuse(self, folder: Path, refused: VariantRefused) -> None:
        """Notes that the variant for this folder is under its floor."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        _refusal_file(folder).write_bytes(
            msgspec.json.encode(Refusal(refused.checkpoint, refused.variant, refused.reason))
        )

    def refusal(self, folder: Path) -> Refusal | None:
        """The note for a folder in the state REFUSED; None without one, or if it is damaged."""
        try:
            return msgspec.json.decode(_refusal_file(folder).read_bytes(), type=Refusal)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def state(self, folder: Path, host: Host, threads: int) -> State:
        """Checks whether the variant is complete, runs on this host and was profiled on it."""
        if self.refusal(folder) is not None:
            return State.REFUSED
        try:
            manifest = checked_manifest(folder)
            check_files(folder, manifest)
        except VariantRejected:
            return State.ABSENT
        if not set(manifest.cpu_features) <= host.features:
            return State.ABSENT
        profiled_here = (manifest.profile.measured_on, manifest.profile.threads) == (host.kind, threads)
        return State.READY if profiled_here else State.PROFILED_ELSEWHERE


def _read_note(note: Path) -> dict[str, str]:
    """What is noted of a source; nothing without a note, or if it is damaged: then it is written anew."""
    try:
        return msgspec.json.decode(note.read_bytes(), type=dict[str, str])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _refusal_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.refused.json")


def _fingerprint(folder: Path, encoder: Path) -> str:
    """A hash of the names, sizes and times of the files, without reading them."""
    files = [*source_files(folder), *source_files(encoder)]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([str(folder.absolute()), stats]).encode()).hexdigest()

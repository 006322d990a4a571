"""Opening a variant: nothing is served that is not, byte for byte and answer for answer, what was verified.

A replica calls `open_variant` before it becomes ready. It checks the digest of every file, that the processor has the
features the variant relies on, and that each golden input still gives its token ids and its answer on this very host.
What is opened depends on the manifest's kind, and so does what is imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from pydantic import ValidationError

from deployments.engines.base import Engine, Seq2SeqEngine, padded
from deployments.engines.host import read_host
from deployments.engines.opening import ONNX_FILE, SEQ2SEQ_FILES, open_engine, open_seq2seq_engine
from deployments.replica.labels import TOKENIZER_FILE, ClassifyTask
from deployments.replica.tokens import TextTokens
from gateway.model.manifest import (
    MANIFEST_NAME,
    ClassifierManifest,
    ExtractiveManifest,
    GoldenSummary,
    SelfTest,
    Seq2SeqManifest,
    VariantManifest,
    read_manifest,
)
from gateway.model.profile import LatencyProfile

if TYPE_CHECKING:
    from deployments.replica.summarize.ranking import Ranker

WRITTEN_AGAIN = 0.5
"""The share of an encoder-decoder's golden tokens that must be written again before the first that differs. Token ids
must be equal, and on the machine that made the variant so is every token; but processors of the same features round
the last bits otherwise, int8 activations carry that on, and one near tie changes all that follows it. A wrong graph,
cache or kernel goes wrong at the first tokens."""

RANKER_FILE = "ranker.json"
TASKS = {"classifier": "classify", "extractive": "summarize", "seq2seq": "summarize"}
"""The task that each kind of variant serves."""

Encode = Callable[[str], list[int]]


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
class OpenClassifier:
    """A classifier that has passed its checks, ready to run."""

    manifest: ClassifierManifest
    engine: Engine
    task: ClassifyTask
    profile: LatencyProfile


@dataclass(frozen=True)
class OpenExtractive:
    """An encoder of sentences that has passed its checks; its engine's logits are vectors (sentences, dimensions)."""

    manifest: ExtractiveManifest
    engine: Engine
    tokens: TextTokens
    ranker: Ranker


@dataclass(frozen=True)
class OpenSeq2Seq:
    """An encoder-decoder that has passed its checks, ready to read and to write."""

    manifest: Seq2SeqManifest
    engine: Seq2SeqEngine
    tokens: TextTokens


OpenVariant: TypeAlias = OpenClassifier | OpenExtractive | OpenSeq2Seq
"""A variant that has passed its checks, told apart by its class."""


def open_variant(folder: Path, threads: int) -> OpenVariant:
    """The variant in a folder, checked and opened. Blocking. Raises VariantRejected."""
    manifest = checked_manifest(folder)
    check_files(folder, manifest)
    missing = sorted(set(manifest.cpu_features) - read_host().features)
    if missing:
        raise VariantRejected(manifest.checkpoint, "the processor", " ".join(manifest.cpu_features), _without(missing))
    match manifest:
        case ClassifierManifest():
            return _classifier(folder, manifest, threads)
        case ExtractiveManifest():
            return _extractive(folder, manifest, threads)
        case Seq2SeqManifest():
            return _seq2seq(folder, manifest, threads)


def open_classifier(folder: Path, threads: int) -> OpenClassifier:
    """The same, of a folder that must hold a classifier. Blocking. Raises VariantRejected."""
    opened = open_variant(folder, threads)
    if not isinstance(opened, OpenClassifier):
        raise VariantRejected(opened.manifest.checkpoint, "kind", "classifier", opened.manifest.kind)
    return opened


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
    if manifest.task != TASKS[manifest.kind]:
        expected = f"{TASKS[manifest.kind]!r} of a variant of the kind {manifest.kind}"
        raise VariantRejected(manifest.checkpoint, f"{MANIFEST_NAME}, task", expected, repr(manifest.task))
    outside = next((name for name in manifest.files if Path(name).name != name), None)
    if outside is not None:
        raise VariantRejected(manifest.checkpoint, MANIFEST_NAME, "plain file names", repr(outside))
    return manifest


def check_files(folder: Path, manifest: VariantManifest) -> None:
    """Every file of the manifest is there with its digest, or VariantRejected names the first that is not.

    So it does with a file that the engine or the tokenizer would open and the manifest has no digest of.
    """
    unsigned = next((name for name in _opened_files(manifest) if name not in manifest.files), None)
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
    """Every golden input, run alone, gives its token ids and its logits within the tolerance, or VariantRejected."""
    for index, golden in enumerate(self_test.golden):
        ids = _checked_ids(checkpoint, index, golden.token_ids, encode(golden.text))
        batch = padded([ids], pad_id=0)
        logits = engine.run(batch.token_ids, batch.attention_mask)[0]
        near = logits.shape == (len(golden.logits),) and (
            float(np.abs(logits - np.asarray(golden.logits)).max()) <= self_test.tolerance
        )
        if not near:
            expected = f"{golden.logits} within {self_test.tolerance:.3g}"
            raise VariantRejected(checkpoint, f"golden input {index}, logits", expected, str(tuple(logits.tolist())))


def check_writing(manifest: Seq2SeqManifest, engine: Seq2SeqEngine, tokens: TextTokens) -> None:
    """Every golden text gives its token ids, and of what is written after them enough is the same.

    Raises VariantRejected, when fewer than `WRITTEN_AGAIN` of all golden tokens come before the first that differs.
    """
    from deployments.replica.summarize.beam_search import source_ids, write_golden

    rules, found = manifest.generation, []
    for at, golden in enumerate(manifest.self_test):
        ids = source_ids(tokens, golden.text, rules.prefix, manifest.max_tokens)
        _checked_ids(manifest.checkpoint, at, golden.token_ids, ids)
        found.append(write_golden(engine, ids, rules, manifest.pad_token_id))
    same = sum(_alike(one, written) for one, written in zip(manifest.self_test, found, strict=True))
    if same < WRITTEN_AGAIN * sum(len(one.written) for one in manifest.self_test):
        at = min(range(len(found)), key=lambda i: _alike(manifest.self_test[i], found[i]))
        what, expected = f"golden text {at}, tokens written", str(manifest.self_test[at].written)
        raise VariantRejected(manifest.checkpoint, what, expected, str(found[at]))


def file_sha256(path: Path) -> str:
    """The hex digest of a file's bytes. Raises FileNotFoundError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _classifier(folder: Path, manifest: ClassifierManifest, threads: int) -> OpenClassifier:
    task = ClassifyTask.open(folder / TOKENIZER_FILE, manifest.labels, manifest.max_tokens, manifest.pad_token_id)
    engine = open_engine(folder, manifest, threads)
    check_answers(manifest.checkpoint, manifest.self_test, engine, task.ids)
    return OpenClassifier(manifest, engine, task, LatencyProfile.from_document(manifest.profile))


def _extractive(folder: Path, manifest: ExtractiveManifest, threads: int) -> OpenExtractive:
    from deployments.replica.summarize.ranking import Ranker

    tokens = TextTokens.open(folder / TOKENIZER_FILE)
    engine = open_engine(folder, manifest, threads)
    check_answers(
        manifest.checkpoint,
        manifest.self_test,
        engine,
        lambda text: tokens.cut(tokens.encode(text), manifest.max_tokens),
    )
    try:
        ranker = Ranker.load(folder / RANKER_FILE)
    except ValueError as error:
        raise VariantRejected(manifest.checkpoint, RANKER_FILE, "a ranker of this version", str(error)) from None
    return OpenExtractive(manifest, engine, tokens, ranker)


def _seq2seq(folder: Path, manifest: Seq2SeqManifest, threads: int) -> OpenSeq2Seq:
    tokens = TextTokens.open(folder / TOKENIZER_FILE)
    engine = open_seq2seq_engine(manifest.engine, folder, threads)
    check_writing(manifest, engine, tokens)
    return OpenSeq2Seq(manifest, engine, tokens)


def _opened_files(manifest: VariantManifest) -> tuple[str, ...]:
    if isinstance(manifest, Seq2SeqManifest):
        return (TOKENIZER_FILE, *SEQ2SEQ_FILES)
    if isinstance(manifest, ExtractiveManifest):
        return (TOKENIZER_FILE, RANKER_FILE, ONNX_FILE)
    return (TOKENIZER_FILE, ONNX_FILE) if manifest.engine == "onnx" else (TOKENIZER_FILE,)


def _checked_ids(checkpoint: str, index: int, expected: tuple[int, ...], got: list[int]) -> list[int]:
    if tuple(got) != expected:
        raise VariantRejected(checkpoint, f"golden input {index}, token ids", str(expected), str(tuple(got)))
    return got


def _alike(golden: GoldenSummary, written: tuple[int, ...]) -> int:
    """How many golden tokens were written again, up to the first that differs."""
    pairs = zip(golden.written, written, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(golden.written), len(written)))


def _without(features: list[str]) -> str:
    return f"one without {' '.join(features)}"

"""How well a variant agrees with its source: the same texts through both, answer by answer.

The variant runs as a replica will run it, through its task and its engine, in batches of alike lengths. Knows numpy
and the ports; the source comes in as a function, so nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deployments.engines.base import Engine, Logits, padded
from deployments.replica.classify import applied
from exporters.errors import Difference
from exporters.texts import VerificationSet
from gateway.model.manifest import Precision, Verification

BATCH = 8
WORST = 10

RunRows = Callable[[list[list[int]]], Logits]
Encode = Callable[[str], list[int]]
Advance = Callable[[float], None]


@dataclass(frozen=True)
class Floors:
    """What a variant must reach: the least share of equal labels, the most accuracy it may lose."""

    label_agreement: float
    accuracy_drop: float = 0.01


FLOORS = {Precision.FP32: Floors(0.999), Precision.INT8: Floors(0.985)}


def floors_of(precision: Precision, floor: float | None, drop: float) -> Floors:
    """The precision's own floor of agreement, unless another is asked for."""
    return Floors(FLOORS[precision].label_agreement if floor is None else floor, drop)


@dataclass(frozen=True)
class Comparison:
    """A verification with what it found wrong: the broken floor in words, or None, and the worst texts."""

    verification: Verification
    broken: str | None
    differences: tuple[Difference, ...]


def run_all(rows: list[list[int]], run: RunRows, advance: Advance) -> Logits:
    """Logits of every row, in the rows' order, computed in batches of alike lengths."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: dict[int, Logits] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        for at, logits in zip(chosen, run([rows[i] for i in chosen]), strict=True):
            found[at] = logits
        advance(len(found) / len(rows))
    return np.stack([found[i] for i in range(len(rows))])


def variant_logits(engine: Engine, encode: Encode, pad_id: int, texts: VerificationSet, advance: Advance) -> Logits:
    """What the variant answers to every text."""
    return run_all([encode(t.text) for t in texts.texts], batched(engine, pad_id), advance)


def batched(engine: Engine, pad_id: int) -> RunRows:
    """The engine over rows of unequal length, as a replica runs it."""

    def run(rows: list[list[int]]) -> Logits:
        batch = padded(rows, pad_id)
        return engine.run(batch.token_ids, batch.attention_mask)

    return run


def source_logits(encode: Encode, run: RunRows, texts: VerificationSet, advance: Advance) -> Logits:
    """What the source answers to every text, by its own tokenizer."""
    return run_all([encode(t.text) for t in texts.texts], run, advance)


def compare(
    source: Logits, variant: Logits, labels: tuple[str, ...], texts: VerificationSet, floors: Floors
) -> Comparison:
    """Judges the variant's logits by the source's, and by the texts' labels where they have any."""
    said, meant = variant.argmax(axis=1), source.argmax(axis=1)
    agreement = float((said == meant).mean())
    true = [labels.index(t.label) if t.label is not None else -1 for t in texts.texts]
    labelled = np.asarray(true) >= 0
    accuracy = float((said == true)[labelled].mean()) if labelled.any() else None
    source_accuracy = float((meant == true)[labelled].mean()) if labelled.any() else None
    apart = np.abs(variant - source)
    verification = Verification(
        texts=len(texts.texts),
        data_set=texts.name,
        label_agreement=agreement,
        label_agreement_floor=floors.label_agreement,
        largest_logit_difference=float(np.nan_to_num(apart, nan=np.inf, posinf=np.inf).max()),
        accuracy=accuracy,
        source_accuracy=source_accuracy,
        accuracy_drop_ceiling=floors.accuracy_drop,
    )
    return Comparison(verification, _broken(verification), _worst(source, variant, labels))


def _broken(found: Verification) -> str | None:
    if not np.isfinite(found.largest_logit_difference):
        return "some of its logits are not numbers"
    if found.label_agreement < found.label_agreement_floor:
        return (
            f"{found.label_agreement:.2%} of {found.texts} labels agree with the source, "
            f"under the floor of {found.label_agreement_floor:.2%}"
        )
    if found.accuracy is not None and found.source_accuracy is not None:
        drop = found.source_accuracy - found.accuracy
        if drop > found.accuracy_drop_ceiling:
            return (
                f"its accuracy is {found.accuracy:.2%} and the source's {found.source_accuracy:.2%}, "
                f"a drop over the ceiling of {found.accuracy_drop_ceiling:.2%}"
            )
    return None


def _worst(source: Logits, variant: Logits, labels: tuple[str, ...]) -> tuple[Difference, ...]:
    """The texts with another label than the source's, then the rest, each by how far the scores are apart."""
    meant = np.asarray([applied("softmax", row) for row in source])
    said = np.asarray([applied("softmax", row) for row in variant])
    flipped = meant.argmax(axis=1) != said.argmax(axis=1)
    apart = np.abs(meant - said).max(axis=1)
    order = sorted(range(len(meant)), key=lambda i: (not flipped[i], -apart[i]))[:WORST]
    return tuple(Difference(i, _answer(meant[i], labels), _answer(said[i], labels)) for i in order if apart[i] > 0)


def _answer(scores: Logits, labels: tuple[str, ...]) -> str:
    """The best label with its score."""
    return f"{labels[int(scores.argmax())]} {scores.max():.3f}"

"""The rules by which a checkpoint is in or out: one function each, of one question of the usual guide.

A rule says why with its numbers, and nothing where it has nothing to say. What is not known is a caution, never a
reason to be out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec import Struct

from gateway.advising.candidates import Candidate
from gateway.advising.knowledge import Knowledge
from gateway.advising.situation import Machine, Situation
from gateway.advising.timing import Timed
from gateway.tasks import TASKS

Verdict: TypeAlias = Literal["in", "caution", "out"]

BUSY_SHARE = 0.6
"""The most of its processors' time that the load may take, so that queues stay short: the default of a catalog's
`autoscaling.target_busy_share`."""

FEW = 1000
"""Labelled examples below which fine-tuning is unstable: Zhang et al., ICLR 2021 (`few-sample` in the knowledge)."""

TRAINING_BATCH = 16
"""Texts of a training step, the fewest that the appendix of BERT recommends (Devlin et al., 2019, A.3)."""

LONGEST_TRAINED = 512
"""Tokens of a training text, where the situation's are longer and the window is not."""


class Ruling(Struct, frozen=True):
    """What one rule says of a checkpoint, in a sentence with its numbers."""

    rule: str
    verdict: Verdict
    text: str


@dataclass(frozen=True)
class Memory:
    """Bytes to serve a checkpoint and to fine-tune it; None where its shape is not known.

    `serve_measured` says that `serve_bytes` is of a replica that runs.
    """

    serve_bytes: float | None
    serve_measured: bool
    fine_tune_bytes: float | None
    fine_tune_batch: int = TRAINING_BATCH


@dataclass(frozen=True)
class Case:
    """One checkpoint in one situation, with its forecast and its memory."""

    situation: Situation
    machine: Machine
    knowledge: Knowledge
    candidate: Candidate
    budget_s: float
    timed: Timed | None
    memory: Memory

    @property
    def cores(self) -> float | None:
        """The processors to serve on, as asked for, else the machine's."""
        return self.situation.cores or self.machine.cores

    @property
    def in_pieces(self) -> bool:
        """True if the task takes a text over the window in several parts: in windows, or in pieces to be rewritten."""
        task = TASKS.get(self.situation.task)
        windowed = task is not None and task.windowed
        return windowed or self.knowledge.tasks[self.situation.task].does == "transform"

    @property
    def memory_bytes(self) -> float | None:
        """The memory to serve and train in, as asked for, else the machine's."""
        asked = self.situation.memory_gb
        return self.machine.memory_bytes if asked is None else asked * 1e9

    @property
    def utilisation(self) -> float | None:
        """The share of the processors' time that the load takes, if every text runs alone."""
        if self.timed is None or self.cores is None:
            return None
        return self.situation.rate * self.timed.core_s / self.cores


Rule: TypeAlias = Callable[[Case], Iterator[Ruling]]


def language(case: Case) -> Iterator[Ruling]:
    """A checkpoint has to be pretrained on every language of the texts."""
    known, asked = case.candidate.known, case.situation
    if known is None:
        yield Ruling("language", "caution", "its languages are not known here")
        return
    lacking = [one for one in asked.language_codes if one not in known.languages]
    if lacking:
        yield Ruling("language", "out", f"not pretrained on {_listed(lacking)}: {_spoken(case)}")
    elif known.spoken < asked.language_count:
        yield Ruling("language", "out", f"{asked.language_count} languages are asked for: {_spoken(case)}")
    else:
        yield Ruling("language", "in", f"{_spoken(case)}")


def _spoken(case: Case) -> str:
    known = case.candidate.known
    assert known is not None
    return f"it has {known.spoken} languages" if known.spoken > 8 else f"it has {_listed(known.languages)}"


def domain(case: Case) -> Iterator[Ruling]:
    """A checkpoint should be pretrained on texts of the subject, and must not be made for another."""
    asked, own = case.situation.domain, case.candidate.domain
    if own is not None and own != asked:
        yield Ruling("domain", "out", f"made for {own} texts alone" + (f", and {asked} was asked for" if asked else ""))
    elif asked is not None and own == asked:
        yield Ruling("domain", "in", f"pretrained on {asked} texts")
    elif asked is not None:
        yield Ruling("domain", "caution", f"pretrained on general text, not on {asked}")


def offers(case: Case) -> Iterator[Ruling]:
    """A checkpoint has to offer what is needed, and to need nothing that the texts do not have."""
    own = () if case.candidate.known is None else case.candidate.known.offers
    for need in case.situation.needs:
        if need in own:
            yield Ruling("offers", "in", f"it has {need}")
        else:
            yield Ruling("offers", "out", f"it has no {need}")
    for unused in own:
        if unused not in case.situation.needs:
            yield Ruling("offers", "out", f"it wants {unused} with every text, which was not asked for")


def length(case: Case) -> Iterator[Ruling]:
    """The window has to hold the longest text, unless the task takes texts in windows, or reads them in pieces."""
    held, shape, asked = case.candidate.held, case.candidate.shape, case.situation.max_tokens
    window = held.manifest.max_tokens if held is not None else None if shape is None else shape.window
    if window is None:
        yield Ruling("length", "caution", "its window is not known here")
    elif asked <= window:
        yield Ruling("length", "in", f"its window of {window} tokens holds {asked}")
    elif case.candidate.ready and case.in_pieces:
        yield Ruling("length", "caution", f"{asked} tokens are over its window of {window}: they are read in pieces")
    else:
        yield Ruling("length", "out", f"its window is {window} tokens, and texts have {asked}")


def budget(case: Case) -> Iterator[Ruling]:
    """The forecast at the percentile has to be within the budget."""
    timed = case.timed
    if timed is None:
        yield Ruling("budget", "caution", "its latency is not known: neither measured here nor of a known shape")
        return
    how = "measured" if timed.measured else f"estimated from {timed.basis}"
    percentile = case.situation.percentile
    said = f"p{percentile:g} {_ms(timed.quantile_s)} ms ({how})"
    fits = timed.quantile_s <= case.budget_s
    comparison = "within" if fits else "over"
    yield Ruling("budget", "in" if fits else "out", f"{said}, {comparison} the budget of {_ms(case.budget_s)} ms")


def load(case: Case) -> Iterator[Ruling]:
    """The processors have to have time for the load, with room for queues."""
    timed, cores, rate = case.timed, case.cores, case.situation.rate
    if timed is None:
        return
    if cores is None:
        yield Ruling("load", "caution", "the machine's processors are not known, so neither is whether they suffice")
        return
    alone, batched = (rate * seconds / cores for seconds in (timed.core_s, timed.batched_core_s))
    said = f"{rate:g} requests/s of {_ms(timed.core_s)} core-ms take {alone:.0%} of {cores:g} cores"
    needed = math.ceil(rate * timed.batched_core_s / BUSY_SHARE)
    if alone <= BUSY_SHARE:
        yield Ruling("load", "in", said)
    elif batched <= BUSY_SHARE:
        yield Ruling("load", "caution", f"{said}; in batches {batched:.0%}")
    else:
        yield Ruling("load", "out", f"{said}, over {BUSY_SHARE:.0%}: it takes {needed} cores")


def serving_memory(case: Case) -> Iterator[Ruling]:
    """A replica has to fit into the memory."""
    needed, given = case.memory.serve_bytes, case.memory_bytes
    if needed is None or given is None:
        what = "its size is" if needed is None else "the machine's memory is"
        yield Ruling("serving memory", "caution", f"{what} not known here")
        return
    how = "resident" if case.memory.serve_measured else "estimated"
    fits = needed <= given
    comparison = "within" if fits else "over"
    said = f"{_mb(needed)} MB to serve ({how}), {comparison} {_mb(given)} MB"
    yield Ruling("serving memory", "in" if fits else "out", said)


def training(case: Case) -> Iterator[Ruling]:
    """A checkpoint has to answer the task as it is, or there are examples to fine-tune it with."""
    labelled = case.situation.labelled
    if case.candidate.ready:
        entry = case.candidate.entry
        scored = "" if entry is None else f"; scored on {entry.quality.data_set}"
        yield Ruling("training", "in", f"answers the task as it is{scored}")
    elif labelled is None:
        yield Ruling("training", "caution", "has to be fine-tuned first; say how many labelled examples there are")
    elif labelled == 0:
        yield Ruling("training", "out", "has to be fine-tuned first, and there are 0 labelled examples")
    elif labelled < FEW:
        yield Ruling("training", "caution", f"fine-tuning on {labelled} examples is unstable under about {FEW}")
    else:
        yield Ruling("training", "in", f"to be fine-tuned on {labelled} examples")


def training_memory(case: Case) -> Iterator[Ruling]:
    """Fine-tuning has to fit into the memory, where it is to be done here."""
    needed, given = case.memory.fine_tune_bytes, case.memory_bytes
    if not case.situation.train:
        return
    if needed is None or given is None:
        yield Ruling("training memory", "caution", "the memory to fine-tune it is not known here")
        return
    batch = case.memory.fine_tune_batch
    said = f"{_mb(needed)} MB to fine-tune {batch} texts at a time"
    fits = needed <= given
    comparison = "within" if fits else "over"
    yield Ruling("training memory", "in" if fits else "out", f"{said}, {comparison} {_mb(given)} MB")


RULES: tuple[Rule, ...] = (
    language,
    domain,
    offers,
    length,
    training,
    budget,
    load,
    serving_memory,
    training_memory,
)
"""In the order of the guide: what the texts are, what there is to learn from, how fast, how large."""


def reasons(case: Case) -> tuple[Ruling, ...]:
    """What every rule says of a checkpoint."""
    return tuple(reason for rule in RULES for reason in rule(case))


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(words)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if seconds >= 0.1 else f"{seconds * 1000:.3g}"


def _mb(size: float) -> str:
    return f"{size / 1e6:.0f}"

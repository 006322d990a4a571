"""The advice: every checkpoint judged by the rules, ranked, with its numbers, and the guide's questions answered.

The documents are what `GET /advise` and `punctual advise --json` write: milliseconds and megabytes, named so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from msgspec import Struct

from gateway.advising.candidates import Candidate, Offered, bases, candidates, set_aside
from gateway.advising.knowledge import Knowledge, knowledge
from gateway.advising.rules import FEW, LONGEST_TRAINED, TRAINING_BATCH, Case, Memory, Ruling, Verdict, reasons
from gateway.advising.shape import PROCESS_BYTES, TRAINER_BYTES
from gateway.advising.situation import Machine, Situation
from gateway.advising.timing import Basis, Timed, estimated, nearest, published, timed
from gateway.model.manifest import Precision
from gateway.model.tier import Tier
from gateway.tasks import TASKS

SPEED_CLASSES = ((50.0, Tier.REALTIME), (500.0, Tier.BALANCED))
"""Latencies in milliseconds up to which a checkpoint is of a tier, beyond them quality. Set by hand: 50 ms is a part of
a page or a call, half a second is what a person waits without noticing."""

USUAL_BUDGET_MS = 1000.0
"""The budget of a task that this gateway does not serve."""


class UnknownSituation(Exception):
    """What is asked cannot be advised on; the message names the field and what it may be."""

    def __init__(self, field: str, message: str) -> None:
        """`field` is the parameter's name."""
        super().__init__(message)
        self.field, self.message = field, message


class Answered(Struct, frozen=True):
    """One question of the guide, with its answer and what that follows from."""

    question: str
    answer: str
    why: str


class AdvisedQuality(Struct, frozen=True):
    """A score, and where it was published."""

    metric: str
    value: float
    data_set: str
    reference: str


class AdvisedLatency(Struct, frozen=True):
    """A forecast for a text of the situation's length on an idle machine. `measured` is false for an estimate.

    `basis` names the checkpoint whose measured times it rests on, `measured_on` their host.
    """

    median_ms: float
    quantile_ms: float
    percentile: float
    core_ms: float
    batched_core_ms: float
    utilisation: float | None
    measured: bool
    basis: str
    measured_on: str
    precision: str
    threads: int


class AdvisedMemory(Struct, frozen=True):
    """Megabytes to serve and to fine-tune; null where the shape is not known. `measured` is of the first."""

    serve_mb: float | None
    measured: bool
    fine_tune_mb: float | None
    fine_tune_batch: int


class Advised(Struct, frozen=True):
    """One checkpoint: whether it is right and why, its numbers, and the catalog entry to paste.

    `status` says where it is: `served`, `prepared` for this host, in a `catalog`, or `public`. `parameters` is their
    number. `entry` is YAML, with comments where something is still to be filled in; null if no task serves it yet.
    """

    name: str
    family: str
    source: str
    status: str
    catalog: str | None
    verdict: Verdict
    ready: bool
    size_class: str | None
    parameters: int | None
    quality: AdvisedQuality | None
    latency: AdvisedLatency | None
    memory: AdvisedMemory
    licence: str
    why: tuple[Ruling, ...]
    entry: str | None
    sources: tuple[str, ...]


class Advice(Struct, frozen=True):
    """The answer: the guide's questions, and the checkpoints, those that are right first.

    `unknown` says in sentences what is not known here and would change the answer.
    """

    situation: dict[str, Any]
    checklist: tuple[Answered, ...]
    right: tuple[Advised, ...]
    wrong: tuple[Advised, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Adviser:
    """Advises on what it is handed: catalogs with what was measured of them, a machine, and the knowledge."""

    offers: Sequence[Offered] = ()
    machine: Machine = field(default_factory=Machine)
    known: Knowledge = field(default_factory=knowledge)

    def advise(self, situation: Situation) -> Advice:
        """Judges every checkpoint for a situation. Raises UnknownSituation."""
        self._check(situation)
        measured, reference = bases(self.known, self.offers), published(self.known)
        cases = [self._case(situation, one, measured, reference) for one in self._candidates(situation)]
        judged = sorted(((case, reasons(case)) for case in cases), key=lambda pair: _rank(*pair))
        shown = [_advised(case, why) for case, why in judged]
        right = tuple(one for one in shown if one.verdict != "out")
        return Advice(
            situation=situation.model_dump(mode="json"),
            checklist=tuple(self._checklist(situation, right)),
            right=right,
            wrong=tuple(one for one in shown if one.verdict == "out"),
            unknown=tuple(self._unknown(situation, measured)),
        )

    def _check(self, situation: Situation) -> None:
        """Raises UnknownSituation for a task or a need that nothing is known of."""
        if situation.task not in self.known.tasks:
            raise UnknownSituation("task", f"must be one of {', '.join(self.known.tasks)}, got {situation.task!r}")
        for need in situation.needs:
            if need not in self.known.offers:
                raise UnknownSituation("needs", f"may be {' and '.join(self.known.offers)}, got {need!r}")

    def _candidates(self, situation: Situation) -> list[Candidate]:
        return candidates(situation.task, self.known, self.offers)

    def _budget_s(self, situation: Situation) -> float:
        if situation.budget_ms is not None:
            return situation.budget_ms / 1000
        if situation.task not in TASKS:
            return USUAL_BUDGET_MS / 1000
        offered = sorted(self.offers, key=lambda one: not one.served)
        usual = TASKS[situation.task].default_budget_ms / 1000
        return offered[0].catalog.budget_s(situation.task) if offered else usual

    def _case(
        self, situation: Situation, one: Candidate, measured: Sequence[Basis], reference: Sequence[Basis]
    ) -> Case:
        budget_s = self._budget_s(situation)
        found: Timed | None = None
        if one.held is not None and one.entry is not None:
            found = timed(situation, one.held.manifest, one.entry.threads, budget_s)
        elif one.shape is not None:
            writes = one.architecture != "encoder" and self.known.tasks[situation.task].does != "understand"
            basis = nearest(one.shape, measured, writes) or nearest(one.shape, reference, writes)
            found = None if basis is None else estimated(situation, one.shape, basis, budget_s)
        memory = _memory(situation, one, self._given_bytes(situation))
        return Case(situation, self.machine, self.known, one, budget_s, found, memory)

    def _given_bytes(self, situation: Situation) -> float | None:
        return self.machine.memory_bytes if situation.memory_gb is None else situation.memory_gb * 1e9

    def _checklist(self, situation: Situation, right: Sequence[Advised]) -> list[Answered]:
        return [
            _architecture(situation, self.known),
            _size(right),
            _examples(situation),
            _subject(situation, self.known),
            _languages(situation),
            _speed(self._budget_s(situation), situation),
            _room(situation, right, self._given_bytes(situation)),
        ]

    def _unknown(self, situation: Situation, measured: Sequence[Basis]) -> list[str]:
        """What is not known here and would change the answer."""
        said = []
        if not measured:
            where = self.known.reference.reading.measured_on
            said.append(f"nothing was measured on this host: latencies are estimated from figures of {where}")
        if self.machine.dot_product is False:
            said.append("this processor has no int8 dot products: estimates in int8 are too low for it")
        if situation.task not in TASKS:
            said.append(f"this gateway does not serve {situation.task} yet")
        if situation.domain and not any(situation.domain == one.domain for one in self.known.checkpoints):
            known = ", ".join(self.known.domains)
            said.append(f"no checkpoint here was pretrained on {situation.domain} texts; there are {known}")
        if self._given_bytes(situation) is None:
            said.append("the machine's memory is not known: memory_gb says it")
        if situation.cores is None and self.machine.cores is None:
            said.append("the machine's processors are not known: cores says it")
        return said


def _memory(situation: Situation, one: Candidate, given: float | None) -> Memory:
    """What serving and fine-tuning take. Fewer texts a step are taken where those of `TRAINING_BATCH` do not fit."""
    shape, held = one.shape, one.held
    resident = None if held is None else held.resident_bytes
    if shape is None:
        files = None if held is None or held.file_bytes is None else PROCESS_BYTES + float(held.file_bytes)
        return Memory(resident or files, resident is not None, None)
    tokens = min(situation.max_tokens, shape.window)
    precision = held.manifest.precision if held is not None else Precision.INT8
    serve = shape.serve_bytes(precision, 1, tokens)
    if held is not None and held.file_bytes is not None:
        serve = PROCESS_BYTES + held.file_bytes + shape.running_bytes(1, tokens)
    trained = min(tokens, LONGEST_TRAINED)
    written = {"decoder": trained, "encoder-decoder": min(situation.output_tokens, trained)}.get(
        str(one.architecture), 0
    )

    def tuned(batch: int) -> float:
        return TRAINER_BYTES + shape.fine_tune_bytes(batch, trained, written)

    batch = TRAINING_BATCH
    while given is not None and batch > 1 and tuned(batch) > given:
        batch //= 2
    return Memory(resident or serve, resident is not None, tuned(batch), batch)


def _rank(case: Case, why: Sequence[Ruling]) -> tuple[object, ...]:
    """The order: right ones first; then the subject's own, ready ones if no examples were named, and by score.

    A checkpoint of fewer languages knows each better than one of many at the same size (Conneau et al., 2020, the curse
    of multilinguality), so those of one or two go first.
    """
    candidate, situation = case.candidate, case.situation
    known, entry = candidate.known, candidate.entry
    missed = [reason.rule for reason in why if reason.verdict == "caution"]
    scale = case.knowledge.tasks[situation.task].compare_by
    score = 0.0 if known is None else known.scores.get(scale, 0.0)
    return (
        sum(reason.verdict == "out" for reason in why),
        "domain" in missed,
        not candidate.ready and not situation.labelled,
        known is not None and known.spoken > max(situation.language_count, 2),
        -score,
        -(entry.quality.standing if entry is not None else 0.0),
        case.timed.quantile_s if case.timed is not None else float("inf"),
        candidate.name,
    )


def _advised(case: Case, why: tuple[Ruling, ...]) -> Advised:
    candidate, shape = case.candidate, case.candidate.shape
    verdicts = {reason.verdict for reason in why}
    verdict: Verdict = "out" if "out" in verdicts else "caution" if "caution" in verdicts else "in"
    known = candidate.known
    return Advised(
        name=candidate.name,
        family=candidate.family,
        source=candidate.source,
        status=candidate.status,
        catalog=candidate.catalog,
        verdict=verdict,
        ready=candidate.ready,
        size_class=None if shape is None else shape.size_class,
        parameters=None if shape is None else shape.count,
        quality=_quality(case),
        latency=_latency(case),
        memory=_in_mb(case.memory),
        licence=candidate.licence,
        why=why,
        entry=_entry(case),
        sources=() if known is None else tuple(case.knowledge.sources[fact] for fact in known.facts),
    )


_SCALES: Mapping[str, tuple[str, str]] = {
    "mnli": ("accuracy", "MultiNLI, matched"),
    "rouge2": ("ROUGE-2", "CNN/DailyMail"),
}
"""The metric and data set of each scale of the knowledge."""


def _quality(case: Case) -> AdvisedQuality | None:
    """The catalog's score, else the published one of the pretrained checkpoint on the task's scale."""
    candidate, scale = case.candidate, case.knowledge.tasks[case.situation.task].compare_by
    if candidate.entry is not None:
        own = candidate.entry.quality
        return AdvisedQuality(own.metric, own.value, own.data_set, own.reference)
    if candidate.known is None or scale not in candidate.known.scores:
        return None
    metric, data_set = _SCALES[scale]
    cited = "; ".join(case.knowledge.sources[fact] for fact in candidate.known.facts)
    return AdvisedQuality(metric, candidate.known.scores[scale], data_set, f"fine-tuned for that: {cited}")


def _latency(case: Case) -> AdvisedLatency | None:
    found = case.timed
    if found is None:
        return None
    return AdvisedLatency(
        median_ms=_ms(found.median_s),
        quantile_ms=_ms(found.quantile_s),
        percentile=case.situation.percentile,
        core_ms=_ms(found.core_s),
        batched_core_ms=_ms(found.batched_core_s),
        utilisation=None if case.utilisation is None else round(case.utilisation, 3),
        measured=found.measured,
        basis=found.basis,
        measured_on=found.measured_on,
        precision=found.precision,
        threads=found.threads,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _in_mb(memory: Memory) -> AdvisedMemory:
    def mb(size: float | None) -> float | None:
        return None if size is None else round(size / 1e6, 1)

    return AdvisedMemory(
        mb(memory.serve_bytes), memory.serve_measured, mb(memory.fine_tune_bytes), memory.fine_tune_batch
    )


def _entry(case: Case) -> str | None:
    """The catalog entry to paste: the catalog's own, or one for what fine-tuning or fetching gives."""
    candidate, situation = case.candidate, case.situation
    if candidate.entry is not None:
        fields = candidate.entry.model_dump(mode="json", exclude_unset=True)
        return _yaml([fields])
    if situation.task not in TASKS:
        return None
    latency_ms = float("inf") if case.timed is None else case.timed.quantile_s * 1000
    quality = {
        "metric": "not measured yet",
        "value": 0.0,
        "data_set": "your own held-out texts",
        "reference": "to be measured before it is served",
    }
    name = candidate.name if candidate.ready else f"{candidate.name}-tuned"
    fields = {
        "name": name,
        "task": situation.task,
        "tier": next((str(tier) for most, tier in SPEED_CLASSES if latency_ms <= most), str(Tier.QUALITY)),
        "family": candidate.family,
        "source": candidate.source if candidate.ready else f"./{name}",
        **({"domain": candidate.domain} if candidate.domain else {}),
        "quality": quality,
        "licence": candidate.licence,
    }
    if candidate.ready:
        note = f"# add revision: the full commit of {candidate.source} that you have read, 40 hexadecimal digits\n"
    else:
        note = f"# ./{name} is the folder that fine-tuning {candidate.source} writes, beside this catalog\n"
    return note + _yaml([fields])


def _yaml(document: object) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110)


def _architecture(situation: Situation, known: Knowledge) -> Answered:
    task = known.tasks[situation.task]
    architecture, facts = next((name, one) for name, one in known.architectures.items() if one.does == task.does)
    aside = "; ".join(f"{name}: {', '.join(families)}" for name, families in set_aside(situation.task, known).items())
    return Answered(
        "understand, generate or transform?",
        f"{task.does}: {architecture}",
        f"wanted is {task.title}; an {architecture} {facts.why}. Set aside, but for what a catalog has for it: {aside}",
    )


def _size(right: Sequence[Advised]) -> Answered:
    classes = list(dict.fromkeys(one.size_class for one in right if one.size_class is not None))
    order = [name for name in ("tiny", "small", "base", "large", "huge") if name in classes]
    answer = ", ".join(order) if order else "none"
    best = next((one for one in right if one.parameters is not None), None)
    why = "no checkpoint of a known size is right; see why each is out"
    if best is not None and best.parameters is not None:
        why = f"{best.name}, ranked first of those of a known size, has {best.parameters / 1e6:.0f} M parameters"
    return Answered("which sizes fit?", answer, why)


def _examples(situation: Situation) -> Answered:
    question, labelled = "are there examples to learn from?", situation.labelled
    if labelled is None:
        return Answered(question, "not said", "checkpoints that answer as they are go first")
    if labelled == 0:
        why = "take one that answers as it is, or labels of the request's own (zero-shot)"
        return Answered(question, "none", why)
    if labelled < FEW:
        why = f"under {FEW}: take what was pretrained best, and compare with zero-shot"
        return Answered(question, f"few, {labelled}", why)
    return Answered(question, f"enough, {labelled}", f"at least {FEW}: pretrained checkpoints can be fine-tuned")


def _subject(situation: Situation, known: Knowledge) -> Answered:
    question = "pretrained on which subject?"
    if situation.domain is None:
        return Answered(question, "general text", f"none was named; there are {', '.join(known.domains)}")
    if situation.domain in known.domains:
        return Answered(question, situation.domain, known.sources["dont-stop"])
    return Answered(question, f"{situation.domain}: none", f"there are {', '.join(known.domains)}")


def _languages(situation: Situation) -> Answered:
    count = situation.language_count
    answer = ", ".join(situation.language_codes) or f"any {count}"
    why = (
        "one language: a checkpoint of that language alone goes first"
        if count == 1
        else "all of them in one checkpoint"
    )
    return Answered("which languages?", answer, why)


def _speed(budget_s: float, situation: Situation) -> Answered:
    budget_ms = budget_s * 1000
    tier = next((str(tier) for most, tier in SPEED_CLASSES if budget_ms <= most), str(Tier.QUALITY))
    asked = f"{situation.percentile:g} % of requests within {budget_ms:g} ms, {situation.rate:g} a second"
    return Answered("how fast?", tier, f"{asked}, {situation.max_tokens} tokens each")


def _room(situation: Situation, right: Sequence[Advised], given: float | None) -> Answered:
    question = "how much memory?"
    best = next((one for one in right if one.memory.serve_mb is not None), None)
    have = "not known" if given is None else f"{given / 1e6:.0f} MB"
    if best is None:
        return Answered(question, have, "no checkpoint of a known size is right")
    why = f"{best.name} takes {best.memory.serve_mb:.0f} MB to serve"
    if best.memory.fine_tune_mb is not None:
        why += f", {best.memory.fine_tune_mb:.0f} MB to fine-tune {best.memory.fine_tune_batch} texts at a time"
    return Answered(question, have, why)

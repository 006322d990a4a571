"""Forecasts of a checkpoint on this host: by its measured profile, or by an estimate from a measured one.

An estimate takes the nearest measured profile, multiplies each cell by the ratio of the two shapes' operations at that
batch and length, and hands the result to the task's own service-time model and to the forecaster: there is no second
model of time. It knows no engine and measures nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from gateway.advising.knowledge import Knowledge, ReadingReference, WritingReference
from gateway.advising.shape import Shape
from gateway.advising.situation import Situation
from gateway.forecasting.forecaster import Forecaster
from gateway.forecasting.load import IDLE
from gateway.model.manifest import GenerationRules, Precision, Seq2SeqManifest, VariantManifest
from gateway.model.messages import Parameters
from gateway.model.profile import LatencyProfile, ProfileCell, ProfileDocument
from gateway.model.request import RequestShape
from gateway.tasks import TASKS, service_time_model
from gateway.tasks.generate import CausalManifest
from gateway.tasks.service_time import LARGEST_RUN, BatchedModel, ServiceTimeModel
from gateway.tasks.summarize import AbstractiveModel
from gateway.tasks.translate import TranslatorManifest

LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Token lengths of an estimated profile, as far as the window goes."""

_Z95 = NormalDist().inv_cdf(0.95)

USUAL_SPREAD = 1.2
"""The 95th percentile by the median, of a run whose spread was not measured. Set by hand, above a quiet host's."""


@dataclass(frozen=True)
class Basis:
    """Measured times of one checkpoint: what estimates begin from. `reading` is by batch and tokens.

    `steps` is of one written token by beams and tokens; None for a checkpoint that does not write.
    """

    name: str
    shape: Shape
    precision: Precision
    measured_on: str
    threads: int
    reading: LatencyProfile
    steps: LatencyProfile | None = None

    @classmethod
    def of(cls, manifest: VariantManifest, shape: Shape) -> Basis:
        """The profiles of a variant. Raises ValueError for a grid with holes."""
        written: ProfileDocument | None = getattr(manifest, "step_profile", None)  # of every kind that writes
        steps = None if written is None else LatencyProfile.from_document(written)
        reading = LatencyProfile.from_document(manifest.profile)
        document = manifest.profile
        precision, name = manifest.precision, manifest.checkpoint
        return cls(name, shape, precision, document.measured_on, document.threads, reading, steps)


def published(known: Knowledge) -> tuple[Basis, Basis]:
    """The references of the knowledge: one that reads, one that writes."""
    reading, writing = known.reference.reading, known.reference.writing
    return _referred(known, reading), _referred(known, writing)


def _referred(known: Knowledge, one: ReadingReference) -> Basis:
    shape = known.named(one.like).shape
    read = LatencyProfile.from_document(_of_one_text(one.ms, one))
    steps = None
    if isinstance(one, WritingReference):
        tokens = max(one.ms)
        cells = [_cell(beams, tokens, ms / 1000, USUAL_SPREAD) for beams, ms in one.step_ms.items()]
        document = ProfileDocument(threads=one.threads, measured_on=one.measured_on, cells=tuple(cells))
        steps = LatencyProfile.from_document(document)
    return Basis(one.like, shape, Precision.INT8, one.measured_on, one.threads, read, steps)


def _of_one_text(ms: Mapping[int, float], one: ReadingReference) -> ProfileDocument:
    cells = tuple(_cell(1, tokens, value / 1000, USUAL_SPREAD) for tokens, value in ms.items())
    return ProfileDocument(threads=one.threads, measured_on=one.measured_on, cells=cells)


def _cell(batch: int, tokens: int, seconds: float, spread: float) -> ProfileCell:
    """A cell that was estimated: with one sample, whose percentile is by the spread."""
    return ProfileCell(
        batch=batch, tokens=tokens, samples=1, p50_s=seconds, p95_s=seconds * spread, min_s=seconds, max_s=seconds
    )


def nearest(shape: Shape, bases: Iterable[Basis], writes: bool) -> Basis | None:
    """The measured checkpoint that an estimate begins from: in int8 if there is one, of the likest operations."""
    able = [one for one in bases if (one.steps is not None) is writes]
    own = shape.operations(1, LENGTHS[0])
    return min(
        able,
        key=lambda one: (
            one.precision is not Precision.INT8,
            abs(math.log(own / one.shape.operations(1, LENGTHS[0]))),
            one.name,
        ),
        default=None,
    )


@lru_cache(maxsize=512)
def estimated_reading(shape: Shape, basis: Basis) -> ProfileDocument:
    """The profile of a shape by that of another: each cell times the ratio of their operations.

    Beyond the basis' own lengths its last cell is taken, with the operations of that.
    """
    lengths = sorted({*(one for one in LENGTHS if one <= shape.window), shape.window})
    spread = math.exp(basis.reading.sigma * _Z95)
    relative = shape.relative_time / basis.shape.relative_time
    cells = []
    for batch in basis.reading.batches:
        for tokens in lengths:
            at = min(max(tokens, basis.reading.lengths[0]), basis.reading.lengths[-1])
            ratio = relative * shape.operations(batch, tokens) / basis.shape.operations(batch, at)
            cells.append(_cell(batch, tokens, ratio * basis.reading.median_s(batch, at), spread))
    return ProfileDocument(threads=basis.threads, measured_on=basis.measured_on, cells=tuple(cells))


def estimated_steps(shape: Shape, basis: Basis) -> ProfileDocument:
    """The profile of a written token: each cell times the ratio of the parameters that a step reads."""
    assert basis.steps is not None, "asked only of a basis that writes"
    ratio, spread = shape.step_parameters / basis.shape.step_parameters, math.exp(basis.steps.sigma * _Z95)
    cells = [
        _cell(beams, tokens, ratio * basis.steps.median_s(beams, tokens), spread)
        for beams in basis.steps.batches
        for tokens in basis.steps.lengths
    ]
    return ProfileDocument(threads=basis.threads, measured_on=basis.measured_on, cells=tuple(cells))


@dataclass(frozen=True)
class Timed:
    """What a checkpoint takes for the texts of a situation, in seconds, on an idle machine.

    `measured` says whether its own profile was used; `basis` names whose was, and `measured_on` its host. `core_s` is
    the core-seconds of one text alone, `batched_core_s` those of one text in a full batch.
    """

    median_s: float
    quantile_s: float
    core_s: float
    batched_core_s: float
    measured: bool
    basis: str
    measured_on: str
    precision: Precision
    threads: int


def timed(situation: Situation, manifest: VariantManifest, threads: int, budget_s: float) -> Timed:
    """The forecast by a variant's own profile. Raises KeyError if its kind does not serve the task.

    One that writes is asked for `output_tokens`, as estimated ones are.
    """
    if isinstance(manifest, Seq2SeqManifest | CausalManifest):
        tokens = min(situation.output_tokens, manifest.generation.max_new_tokens)
        manifest = manifest.model_copy(update={"output_tokens": float(tokens)})
    elif isinstance(manifest, TranslatorManifest):  # writes as many for each of the text's
        sizes = {"output_tokens": situation.output_tokens, "input_tokens": situation.max_tokens}
        manifest = manifest.model_copy(update={name: float(tokens) for name, tokens in sizes.items()})
    model = service_time_model(manifest, situation.task)
    on, precision = manifest.profile.measured_on, manifest.precision
    return _forecast(situation, model, threads, budget_s, True, manifest.checkpoint, on, precision)


def estimated(situation: Situation, shape: Shape, basis: Basis, budget_s: float) -> Timed:
    """The forecast by an estimate from a measured checkpoint. One that writes is asked for `output_tokens`."""
    profile = estimated_reading(shape, basis)
    if basis.steps is None:
        model: ServiceTimeModel = BatchedModel(LatencyProfile.from_document(profile), shape.window)
    else:
        model = AbstractiveModel(_draft(situation, shape, profile, estimated_steps(shape, basis)))
    return _forecast(situation, model, basis.threads, budget_s, False, basis.name, basis.measured_on, basis.precision)


def _draft(situation: Situation, shape: Shape, reading: ProfileDocument, steps: ProfileDocument) -> Seq2SeqManifest:
    """As much of a manifest as the service times of a checkpoint that writes are read from."""
    rules = GenerationRules(
        decoder_start_token_id=0, eos_token_ids=(0,), max_new_tokens=situation.output_tokens, num_beams=1
    )
    fields: dict[str, Any] = {
        "profile": reading,
        "step_profile": steps,
        "max_tokens": shape.window,
        "generation": rules,
        "output_tokens": float(situation.output_tokens),
    }
    return Seq2SeqManifest.model_construct(**fields)


def _forecast(
    situation: Situation,
    model: ServiceTimeModel,
    threads: int,
    budget_s: float,
    measured: bool,
    basis: str,
    measured_on: str,
    precision: Precision,
) -> Timed:
    task = TASKS.get(situation.task)
    parameters = Parameters() if task is None else task.parameters()
    asked = RequestShape(((situation.max_tokens,),), parameters)
    forecaster = Forecaster(model, cores=threads)
    found = forecaster.forecast(asked, IDLE, situation.percentile, 0.0, budget_s)
    batched_s = min(
        forecaster.run_s(batch, situation.max_tokens) / batch for batch in _batches(min(model.max_batch, LARGEST_RUN))
    )
    return Timed(
        median_s=found.latency_s,
        quantile_s=found.quantile_s,
        core_s=found.cost_s,
        batched_core_s=min(found.cost_s, batched_s),
        measured=measured,
        basis=basis,
        measured_on=measured_on,
        precision=precision,
        threads=threads,
    )


def _batches(most: int) -> Iterator[int]:
    """1, 2, 4 and so on, up to the most."""
    size = 1
    while size <= most:
        yield size
        size *= 2

"""Measuring how long an encoder-decoder takes: to read with its first step, and for each later step, on this host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from deployments.engines.base import Decoder, Seq2SeqEngine, TokenIds
from exporters.profiling import Shape, Watch, measure
from gateway.model.profile import ProfileDocument

READ_LENGTHS = (16, 32, 64, 128, 256, 512, 1024)
STEP_LENGTHS = (32, 128, 512)
ROWS = (1, 2, 4, 8)
STEPS = 6
"""Later steps that make one sample, at each number of rows; all of them are taken in one decoding, so that a source
is read once for them all, and no cell has more tokens written than another on average."""

READING_SHARE = 0.4


def measure_reading_and_steps(
    engine: Seq2SeqEngine,
    window: int,
    token_ids: tuple[int, ...],
    start_token: int,
    threads: int,
    measured_on: str,
    watch: Watch,
) -> tuple[ProfileDocument, ProfileDocument]:
    """The profile of one run of the encoder with the first decoding step, by tokens of the source, at batch size 1;
    and that of each later step, by rows and by tokens of the source. Both within about the watch's budget.

    `token_ids`, repeated, make the sources. Raises what the engine raises.
    """
    reading = replace(
        watch, budget_s=watch.budget_s * READING_SHARE, advance=lambda share: watch.advance(share * READING_SHARE)
    )
    stepping = replace(
        watch,
        budget_s=watch.budget_s * (1 - READING_SHARE),
        advance=lambda share: watch.advance(READING_SHARE + share * (1 - READING_SHARE)),
    )
    first = np.asarray([start_token], dtype=np.int64)

    def read(shape: Shape) -> Mapping[Shape, float]:
        source = _source(token_ids, shape.tokens)
        started = watch.clock()
        _begun(engine, source, first)
        return {shape: watch.clock() - started}

    def step(shape: Shape) -> Mapping[Shape, float]:
        decoder = _begun(engine, _source(token_ids, shape.tokens), first)
        rows = list(ROWS)
        watch.chance.shuffle(rows)
        return {Shape(count, shape.tokens): _mean_step_s(decoder, count, token_ids, watch) for count in rows}

    documents = (
        measure([Shape(1, length) for length in _up_to(READ_LENGTHS, window)], read, reading),
        measure([Shape(1, length) for length in _up_to((*STEP_LENGTHS, window), window)], step, stepping),
    )
    whole, later = (ProfileDocument(threads=threads, measured_on=measured_on, cells=cells) for cells in documents)
    return whole, later


def _mean_step_s(decoder: Decoder, rows: int, token_ids: tuple[int, ...], watch: Watch) -> float:
    """Seconds of one step of so many rows; the step that forks or drops rows to come to that number is not counted."""
    tokens = np.resize(np.asarray(token_ids, dtype=np.int64), rows)
    decoder.step(tokens, np.zeros(rows, dtype=np.int64))
    turned = np.arange(rows, dtype=np.int64)[::-1].copy()  # rows change places, as beams do
    started = watch.clock()
    for _ in range(STEPS):
        decoder.step(tokens, turned)
    return (watch.clock() - started) / STEPS


def _begun(engine: Seq2SeqEngine, source: TokenIds, first: TokenIds) -> Decoder:
    decoder = engine.encode(source)
    decoder.step(first, np.zeros(1, dtype=np.int64))
    return decoder


def _source(token_ids: tuple[int, ...], tokens: int) -> TokenIds:
    return np.resize(np.asarray(token_ids, dtype=np.int64), tokens)


def _up_to(lengths: Iterable[int], window: int) -> list[int]:
    """The lengths in order, the window itself in place of those past it."""
    return sorted({min(length, window) for length in lengths})

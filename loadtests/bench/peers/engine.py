"""The upper bound for any server: a variant's tokeniser, engine and softmax in a plain loop, without HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter

import numpy as np

from deployments.engines.base import padded
from deployments.replica.classify import OpenClassifier, open_classifier
from deployments.replica.tokens import Encoded
from gateway.tasks.classify import ClassifyParameters, LabelScore
from loadtests.bench.peers.wrk import Sample
from loadtests.errors import EngineFailed
from loadtests.sentences import Inputs, texts_of

WARM_UP = 50


@dataclass(frozen=True)
class BareEngine:
    """The variant without HTTP: one caller at one connection, else `processes` callers. Each has one engine thread."""

    variant: Path
    asked: Sequence[Inputs]
    processes: int

    def run(self, connections: int, seconds: float) -> Sample:
        """Starts the callers, waits until they are warm, and measures them together. Raises EngineFailed."""
        spawned = get_context("spawn")
        pipes = [spawned.Pipe() for _ in range(1 if connections == 1 else self.processes)]
        children = [spawned.Process(target=_caller, args=(far, self.variant, self.asked, seconds)) for _, far in pipes]
        try:
            for child, (_, far) in zip(children, pipes, strict=True):
                child.start()
                far.close()  # so that reading raises EOFError when the child ends
            for near, _ in pipes:
                near.recv()
            for near, _ in pipes:
                near.send("go")
            return pooled([near.recv() for near, _ in pipes], seconds)
        except EOFError:
            raise EngineFailed("a process of the bare engine ended without its latencies") from None
        finally:
            for child in children:
                child.terminate()
                child.join()


def pooled(latencies_s: Sequence[Sequence[float]], seconds: float) -> Sample:
    """Merges the latencies of callers that ran during the same `seconds` into one sample."""
    merged = np.concatenate([np.asarray(one, dtype=np.float64) for one in latencies_s])
    if not merged.size:
        return Sample(0, 0, seconds, 0.0, 0.0, 0.0)
    p50, p90, p99 = (float(value) for value in np.percentile(merged, (50, 90, 99)))
    return Sample(int(merged.size), 0, seconds, p50, p90, p99)


def answer(variant: OpenClassifier, text: str) -> tuple[LabelScore, ...]:
    """The variant's scores for one text, computed on the calling thread."""
    return answers(variant, [text])[0]


def answers(variant: OpenClassifier, texts: Sequence[str]) -> list[tuple[LabelScore, ...]]:
    """The variant's scores for each text, padded and run together on the calling thread."""
    rows = []
    for text in texts:
        encoded = variant.scorer.encode(text, "longest_first")
        assert isinstance(encoded, Encoded), "only truncation='error' gives a failure"
        rows.append(encoded.token_ids)
    batch = padded(rows, variant.scorer.pad_id)
    logits = variant.engine.run(batch.token_ids, batch.attention_mask)
    return [variant.scorer.scores(row, ClassifyParameters()) for row in logits]


def latencies(
    variant: OpenClassifier, asked: Sequence[Inputs], seconds: float, clock: Callable[[], float] = perf_counter
) -> list[float]:
    """Answers one request after another for `seconds`. Returns each answer's latency in seconds."""
    taken: list[float] = []
    end = clock() + seconds
    for inputs in cycle(asked):
        start = clock()
        if start >= end:
            break
        answers(variant, texts_of(inputs))
        taken.append(clock() - start)
    return taken


def _caller(pipe: Connection, folder: Path, asked: Sequence[Inputs], seconds: float) -> None:
    """A caller's process: sends "ready", waits for the start message, and sends its latencies."""
    variant = open_classifier(folder, threads=1)
    for inputs in asked[:WARM_UP]:
        answers(variant, texts_of(inputs))
    pipe.send("ready")
    pipe.recv()
    pipe.send(latencies(variant, asked, seconds))

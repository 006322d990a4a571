"""The limit that no server can pass: a variant's tokenising, engine and softmax in a plain loop, without HTTP."""

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
from deployments.replica.classify import Encoded, OpenClassifier, open_classifier
from gateway.tasks.classify import ClassifyParameters, LabelScore
from loadtests.bench.peers.wrk import Sample
from loadtests.errors import EngineFailed

WARM_UP = 50


@dataclass(frozen=True)
class BareEngine:
    """The variant without HTTP: one caller at one connection, else as many processes as given, one thread each."""

    variant: Path
    texts: Sequence[str]
    processes: int

    def run(self, connections: int, seconds: float) -> Sample:
        """Starts the callers, lets them load and warm up, and then run at once. Raises EngineFailed."""
        spawned = get_context("spawn")
        pipes = [spawned.Pipe() for _ in range(1 if connections == 1 else self.processes)]
        children = [spawned.Process(target=_caller, args=(far, self.variant, self.texts, seconds)) for _, far in pipes]
        try:
            for child, (_, far) in zip(children, pipes, strict=True):
                child.start()
                far.close()  # so that a child that ends is an end of its pipe
            for near, _ in pipes:
                near.recv()
            for near, _ in pipes:
                near.send("go")
            return pooled([near.recv() for near, _ in pipes], seconds)
        except EOFError:
            raise EngineFailed("the bare engine could not be measured: a caller ended without its latencies") from None
        finally:
            for child in children:
                child.terminate()
                child.join()


def pooled(latencies_s: Sequence[Sequence[float]], seconds: float) -> Sample:
    """One sample of what several callers measured in the same `seconds`."""
    every = np.concatenate([np.asarray(one, dtype=np.float64) for one in latencies_s])
    if not every.size:
        return Sample(0, 0, seconds, 0.0, 0.0, 0.0)
    p50, p90, p99 = (float(value) for value in np.percentile(every, (50, 90, 99)))
    return Sample(int(every.size), 0, seconds, p50, p90, p99)


def answer(variant: OpenClassifier, text: str) -> tuple[LabelScore, ...]:
    """What the variant says to one text, run alone on the calling thread."""
    encoded = variant.task.encode(text, "longest_first")
    assert isinstance(encoded, Encoded), "only truncation='error' gives a failure"
    batch = padded([encoded.token_ids], variant.task.pad_id)
    logits = variant.engine.run(batch.token_ids, batch.attention_mask)[0]
    return variant.task.scores(logits, ClassifyParameters())


def latencies(
    variant: OpenClassifier, texts: Sequence[str], seconds: float, clock: Callable[[], float] = perf_counter
) -> list[float]:
    """Answers one text after the other for `seconds`; gives the seconds that each took."""
    taken: list[float] = []
    end = clock() + seconds
    for text in cycle(texts):
        start = clock()
        if start >= end:
            break
        answer(variant, text)
        taken.append(clock() - start)
    return taken


def _caller(pipe: Connection, folder: Path, texts: Sequence[str], seconds: float) -> None:
    """One caller, in a process of its own: says that it is ready, waits for a word, and gives its latencies."""
    variant = open_classifier(folder, threads=1)
    for text in texts[:WARM_UP]:
        answer(variant, text)
    pipe.send("ready")
    pipe.recv()
    pipe.send(latencies(variant, texts, seconds))

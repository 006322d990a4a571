"""The limit: a variant's tokenising, engine and softmax in a plain loop, without HTTP or queue.

Run as `python -m loadtests.peers.engine FOLDER SENTENCES SECONDS`, SENTENCES being a JSON list in a file. It says
`ready`, waits for a line on its standard input, runs, and prints the latencies of its answers, in seconds, as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from time import perf_counter

from deployments.engines.base import padded
from deployments.replica.classify import OpenClassifier, open_classifier
from deployments.replica.labels import Encoded
from gateway.tasks.classify import ClassifyParameters, LabelScore

WARM_UP = 50


def answer(variant: OpenClassifier, text: str) -> tuple[LabelScore, ...]:
    """What the variant says to one text, run alone on the calling thread."""
    encoded = variant.task.encode(text, "longest_first")
    assert isinstance(encoded, Encoded), "only truncation='error' gives a failure"
    batch = padded([encoded.token_ids], variant.task.pad_id)
    logits = variant.engine.run(batch.token_ids, batch.attention_mask)[0]
    return variant.task.scores(logits, ClassifyParameters())


def latencies(
    variant: OpenClassifier, texts: list[str], seconds: float, clock: Callable[[], float] = perf_counter
) -> list[float]:
    """One answer after the other for so long; the seconds each took."""
    taken: list[float] = []
    end = clock() + seconds
    for text in cycle(texts):
        start = clock()
        if start >= end:
            break
        answer(variant, text)
        taken.append(clock() - start)
    return taken


def main(folder: Path, sentences: Path, seconds: float) -> None:
    """The program."""
    variant, texts = open_classifier(folder, threads=1), json.loads(sentences.read_bytes())
    for text in texts[:WARM_UP]:
        answer(variant, text)
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(latencies(variant, texts, seconds)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))

"""Measures the runs of one checkpoint in a process of its own: time and memory by batch and length.

`measured` starts it as `python -m loadtests.bench.measuring.runs`. The job goes to its standard input; progress and
results come from its standard output, as JSON lines. Each kind of run has a fresh process, so that the memory of one is
not another's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import psutil
from msgspec import Struct

from exporters.profiling import Shape, measure, watch_here
from loadtests.errors import EngineFailed

VARIANT, FOLDER, RANDOM = "variant", "folder", "random"
"""What a job runs: a variant by its engine, a checkpoint's folder, or random weights of a known shape, by PyTorch."""

LOG_END = 1500
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Run: TypeAlias = Callable[[int, int], None]
"""Runs a batch of texts of so many tokens."""


class Job(Struct, frozen=True):
    """What is run: `kind` is one of the above, `place` a folder or a name of the knowledge, `run` a name of `runs_of`.

    All shapes together are timed for about `budget_s` seconds.
    """

    kind: str
    place: str
    run: str
    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    threads: int
    budget_s: float


class Progressed(Struct, frozen=True, tag="progressed"):
    """The share of the job that is done."""

    share: float


class Cell(Struct, frozen=True):
    """One batch and length: median and 95th percentile in seconds, and the most bytes that the process held.

    `peak_bytes` is None where the system does not tell.
    """

    batch: int
    tokens: int
    samples: int
    p50_s: float
    p95_s: float
    peak_bytes: int | None


class Measured(Struct, frozen=True, tag="measured"):
    """The results of a job: bytes held when it was loaded, the number of parameters if it is known, and all cells."""

    loaded_bytes: int
    parameters: int | None
    cells: tuple[Cell, ...]


def measured(job: Job, advance: Callable[[float], None]) -> Measured:
    """Runs a job in its own process; blocks for about its budget. Raises EngineFailed with the end of its log."""
    from loadtests.bench.peers.servers import ROOT, child_environment  # not in the child: its memory is measured

    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "-m", "loadtests.bench.measuring.runs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=child_environment() | dict.fromkeys(POOLS, str(job.threads)),
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None, "both are pipes"
        try:
            with suppress(BrokenPipeError):  # one that ended already has said why in its log
                process.stdin.write(msgspec.json.encode(job))
                process.stdin.close()
            found = _last(process.stdout, advance)
            status = process.wait()
        finally:
            process.kill()
        if found is None:
            log.seek(0)
            end = log.read().decode(errors="replace").strip()[-LOG_END:]
            raise EngineFailed(f"{job.place}, {job.run}: its process ended with {status}: {end}")
        return found


def _last(lines: Iterable[bytes], advance: Callable[[float], None]) -> Measured | None:
    """Reports progress, and returns the result; None if the process ended without one."""
    for line in lines:
        event = msgspec.json.decode(line, type=Progressed | Measured)
        if isinstance(event, Measured):
            return event
        advance(event.share)
    return None


def perform(job: Job, advance: Callable[[float], None]) -> Measured:
    """Loads what the job names, runs each shape once for its memory, smallest first, and then times them all."""
    run, parameters = runs_of(job)
    loaded = psutil.Process().memory_info().rss
    shapes = [Shape(batch, tokens) for batch in job.batches for tokens in job.lengths]
    peaks: dict[Shape, int | None] = {}
    for shape in sorted(shapes, key=lambda one: (one.area, one.batch)):
        reset_peak()
        run(shape.batch, shape.tokens)
        peaks[shape] = peak_bytes()
    watch = watch_here(job.budget_s, advance)

    def probe(shape: Shape) -> Mapping[Shape, float]:
        started = watch.clock()
        run(shape.batch, shape.tokens)
        return {shape: watch.clock() - started}

    cells = [
        Cell(one.batch, one.tokens, one.samples, one.p50_s, one.p95_s, peaks[Shape(one.batch, one.tokens)])
        for one in measure(shapes, probe, watch)
    ]
    return Measured(loaded, parameters, tuple(cells))


def runs_of(job: Job) -> tuple[Run, int | None]:
    """What the job runs, and the number of parameters. Imports only the libraries that it needs."""
    if job.kind == VARIANT:
        return _of_variant(Path(job.place), job.threads), None
    from exporters.torch_runs import TorchRuns

    if job.kind == FOLDER:
        model = TorchRuns.of_folder(Path(job.place), job.threads)
    else:
        from gateway.advising.knowledge import knowledge

        known = knowledge()
        one = known.named(job.place)
        model = TorchRuns.of_shape(one.family, known.families[one.family].architecture, one.shape, job.threads)
    return model.runs()[job.run], model.parameters


def _of_variant(folder: Path, threads: int) -> Run:
    """A run of a variant's engine: a padded batch, or of an encoder-decoder the reading of each text in turn."""
    import numpy as np

    from deployments.engines.opening import open_causal_engine, open_engine, open_seq2seq_engine
    from gateway.model.manifest import Seq2SeqManifest
    from gateway.tasks import read_manifest
    from gateway.tasks.generate import CausalManifest

    manifest = read_manifest(folder)

    def texts(batch: int, tokens: int) -> Any:
        return np.full((batch, tokens), 5, dtype=np.int64)

    if isinstance(manifest, Seq2SeqManifest):
        writer, first = open_seq2seq_engine(manifest.engine, folder, threads), np.zeros(1, dtype=np.int64)

        def read(batch: int, tokens: int) -> None:
            for row in texts(batch, tokens):
                writer.encode(row).step(first + manifest.generation.decoder_start_token_id, first)

        return read
    if isinstance(manifest, CausalManifest):
        causal = open_causal_engine(manifest.engine, folder, threads)

        def begin(batch: int, tokens: int) -> None:
            for row in texts(batch, tokens):
                causal.encode(row[:-1]).step(row[-1:], np.zeros(1, dtype=np.int64))

        return begin
    engine = open_engine(folder, manifest, threads)

    def run(batch: int, tokens: int) -> None:
        ids = texts(batch, tokens)
        engine.run(ids, np.ones_like(ids))

    return run


def reset_peak(reset: Path = RESET) -> None:
    """Makes the peak of resident memory begin anew, where the system can (Linux)."""
    try:
        reset.write_text("5")
    except OSError:
        return


def peak_bytes(status: Path = STATUS) -> int | None:
    """The peak of resident memory since it was reset, in bytes; None where the system does not tell."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("VmHWM:")]
    return int(found[0][1]) * 1024 if found else None


def main() -> None:
    """Runs the process. Redirects the libraries' output to standard error, away from the results."""
    events = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)

    def tell(event: Progressed | Measured) -> None:
        events.write(msgspec.json.encode(event) + b"\n")

    tell(perform(job, lambda share: tell(Progressed(share))))


if __name__ == "__main__":
    main()

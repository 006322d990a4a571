"""An engine that writes, alone in a process: its memory, its thread pool and its settings are nobody else's.

`running` starts it as `python -m loadtests.bench.decoding.process`. The job is the first line of its standard input
and `Loaded` the answer; then each `Ask` is answered with a `Writing`. All are JSON, one a line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import IO, TypeVar

import msgspec
import psutil
from msgspec import Struct

from loadtests.bench.decoding.peer import DecodingPeer, open_peer
from loadtests.errors import EngineFailed

STOP_WITHIN_S = 20.0
LOG_END = 1500
POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Job(Struct, frozen=True):
    """Which engine to load from which folder, and the text to read."""

    engine: str
    folder: str
    threads: int
    token_ids: tuple[int, ...]
    start_id: int
    end_id: int


class Loaded(Struct, frozen=True):
    """How loading went: seconds from the library's import to a ready model, and the resident bytes then."""

    load_s: float
    resident_bytes: int
    arithmetic: str


class Ask(Struct, frozen=True):
    """How many tokens to write, with how many beams (1: greedy)."""

    beams: int
    tokens: int


class Writing(Struct, frozen=True):
    """Seconds for the encoder alone (None: it cannot), for the text and one token, and for the text and all `tokens`.

    It is also the sample of a turn in the race.
    """

    tokens: int
    encode_s: float | None
    one_s: float
    all_s: float
    resident_bytes: int

    @property
    def token_s(self) -> float:
        """One more token: the encoder and the first step are in both times and cancel out."""
        return (self.all_s - self.one_s) / (self.tokens - 1)

    @property
    def encoder_s(self) -> float:
        """The encoder: measured alone, else what the first token took more than a further one."""
        return self.one_s - self.token_s if self.encode_s is None else self.encode_s

    @property
    def spoilt(self) -> str:
        """Says so if one token took longer than all of them: the machine was busy with something else."""
        if self.all_s > self.one_s:
            return ""
        return f"it took {self.one_s:.2f} s for one token and {self.all_s:.2f} s for {self.tokens}"


Answer = TypeVar("Answer", Loaded, Writing)


class RunningEngine:
    """An engine's process, loaded and waiting. `running` makes and ends it."""

    def __init__(self, job: Job, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        """Hands over the job and waits until the model is loaded. Raises EngineFailed."""
        self._name, self._process, self._log = job.engine, process, log
        self.loaded = self._answer(job, Loaded)

    def write(self, ask: Ask) -> Writing:
        """One turn; seconds or minutes. Raises EngineFailed with the end of what the process said."""
        return self._answer(ask, Writing)

    def _answer(self, question: Struct, kind: type[Answer]) -> Answer:
        assert self._process.stdin is not None and self._process.stdout is not None, "both are pipes"
        try:
            self._process.stdin.write(msgspec.json.encode(question) + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            status = self._process.wait()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip()[-LOG_END:]
            raise EngineFailed(f"{self._name} ended with {status}: {said}")
        return msgspec.json.decode(line, type=kind)


@contextmanager
def running(job: Job) -> Iterator[RunningEngine]:
    """An engine in a process of its own, its thread pools as large as asked. Raises EngineFailed."""
    from loadtests.bench.peers.servers import ROOT, child_environment  # here: an engine's memory counts no server's

    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.bench.decoding.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=child_environment() | dict.fromkeys(POOLS, str(job.threads)),
        )
        try:
            yield RunningEngine(job, process, log)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def written(peer: DecodingPeer, token_ids: tuple[int, ...], ask: Ask) -> Writing:
    """One turn in the engine's process. Raises ValueError if the engine writes more or fewer tokens than asked."""
    encode_s = None
    if peer.encodes_alone:
        start = perf_counter()
        peer.encode(token_ids)
        encode_s = perf_counter() - start
    one_s, all_s = (_seconds(peer, token_ids, ask.beams, tokens) for tokens in (1, ask.tokens))
    return Writing(ask.tokens, encode_s, one_s, all_s, _resident())


def _seconds(peer: DecodingPeer, token_ids: tuple[int, ...], beams: int, tokens: int) -> float:
    start = perf_counter()
    count = peer.write(token_ids, beams, tokens)
    taken = perf_counter() - start
    if count != tokens:
        raise ValueError(f"it was asked for {tokens} tokens with {beams} beams and wrote {count}")
    return taken


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)


def main() -> None:
    """The engine's process. Whatever a library prints goes to standard error, so that answers stay whole lines."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    start = perf_counter()
    peer = open_peer(job.engine, Path(job.folder), job.threads, job.start_id, job.end_id)
    loaded = Loaded(perf_counter() - start, _resident(), peer.arithmetic)
    answers.write(msgspec.json.encode(loaded) + b"\n")
    for line in sys.stdin.buffer:
        answer = written(peer, job.token_ids, msgspec.json.decode(line, type=Ask))
        answers.write(msgspec.json.encode(answer) + b"\n")


if __name__ == "__main__":
    main()

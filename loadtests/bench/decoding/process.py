"""Runs one decoding engine in its own process, with separate memory, thread pools and settings.

`running` starts it as `python -m loadtests.bench.decoding.process`. Messages are JSON lines on standard input and
output: a `Job` is answered with `Loaded`, each `Ask` with a `Writing`.
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
    """The engine, the folder it loads, and the token ids of the text it reads."""

    engine: str
    folder: str
    threads: int
    token_ids: tuple[int, ...]
    start_id: int
    end_id: int


class Loaded(Struct, frozen=True):
    """The result of loading: seconds from the library's import to a ready model, resident bytes, and precision."""

    load_s: float
    resident_bytes: int
    arithmetic: str


class Ask(Struct, frozen=True):
    """The number of tokens to write, and of beams (1 is greedy)."""

    beams: int
    tokens: int


class Writing(Struct, frozen=True):
    """One turn's measurement, in seconds.

    `encode_s` is the encoder alone (None if the engine cannot run it), `one_s` the encoder and one token, `all_s` the
    encoder and all `tokens`.
    """

    tokens: int
    encode_s: float | None
    one_s: float
    all_s: float
    resident_bytes: int

    @property
    def token_s(self) -> float:
        """Seconds per further token; the encoder and the first step cancel out."""
        return (self.all_s - self.one_s) / (self.tokens - 1)

    @property
    def encoder_s(self) -> float:
        """Seconds of the encoder: measured alone, or else `one_s` minus `token_s`."""
        return self.one_s - self.token_s if self.encode_s is None else self.encode_s

    @property
    def invalid(self) -> str:
        """The reason, if one token took longer than all tokens because of other processes; else empty."""
        if self.all_s > self.one_s:
            return ""
        return f"it took {self.one_s:.2f} s for one token and {self.all_s:.2f} s for {self.tokens}"


Answer = TypeVar("Answer", Loaded, Writing)


class RunningEngine:
    """A running engine process with its model loaded. `running` starts and stops it."""

    def __init__(self, job: Job, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        """Sends the job and waits until the model is loaded. Raises EngineFailed."""
        self._name, self._process, self._log = job.engine, process, log
        self.loaded = self._answer(job, Loaded)

    def write(self, ask: Ask) -> Writing:
        """Measures one turn; takes seconds or minutes. Raises EngineFailed with the end of the process's log."""
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
            log = self._log.read().decode(errors="replace").strip()[-LOG_END:]
            raise EngineFailed(f"{self._name} ended with {status}: {log}")
        return msgspec.json.decode(line, type=kind)


@contextmanager
def running(job: Job) -> Iterator[RunningEngine]:
    """Runs an engine in its own process with thread pools of `job.threads`. Raises EngineFailed."""
    from loadtests.bench.peers.servers import ROOT, child_environment  # not in the child: its memory is measured

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
    """Measures one turn in the engine's process. Raises ValueError if the engine writes another number of tokens."""
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
    """Runs the engine's process. Redirects the libraries' output to standard error, away from the answers."""
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

"""Which engines race at writing, what each loads, and each as a process that answers turn by turn."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO

import msgspec

from loadtests.bench.peers.servers import ROOT, child_environment
from loadtests.errors import EngineFailed, NoRace
from loadtests.peers.decoding_port import Ask, DecodingJob, Loaded, Told

STOP_WITHIN_S = 20.0
LOG_END = 1500


@dataclass(frozen=True)
class DecodingEngine:
    """One engine in one precision: the library it needs, and the kind of folder it loads.

    A `candidate` is another library than the baseline's: the one that may be worth an engine.
    """

    name: str
    library: str
    loads: str
    candidate: bool = True

    @property
    def installed(self) -> bool:
        """Whether its library is here."""
        return find_spec(self.library) is not None


BASELINE = "onnxruntime-int8"
ENGINES = (
    DecodingEngine(BASELINE, "onnxruntime", "int8", candidate=False),
    DecodingEngine("onnxruntime-fp32", "onnxruntime", "fp32", candidate=False),
    DecodingEngine("ctranslate2-int8", "ctranslate2", "ctranslate2"),
    DecodingEngine("openvino-bf16", "openvino", "fp32"),
    DecodingEngine("torch-bf16", "torch", "checkpoint"),
)


def named_engines(names: list[str] | None) -> tuple[DecodingEngine, ...]:
    """The engines of these names, all of them by default. Raises NoRace, which lists what there is."""
    known = {engine.name: engine for engine in ENGINES}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise NoRace(f"no engine is called {', '.join(unknown)}; there are {', '.join(known)}")
    return tuple(engine for engine in ENGINES if not names or engine.name in names)


class RunningEngine:
    """An engine's process, loaded and waiting; `running` makes and ends it."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: IO[bytes], job: DecodingJob) -> None:
        """Hands over the job and waits until the model is loaded. Raises EngineFailed."""
        self.name = name
        self._process, self._log = process, log
        self.loaded = msgspec.json.decode(self._answer(job), type=Loaded)

    def turn(self, ask: Ask) -> Told:
        """One turn; seconds or minutes. Raises EngineFailed with the end of what the process said."""
        return msgspec.json.decode(self._answer(ask), type=Told)

    def _answer(self, question: msgspec.Struct) -> bytes:
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
            raise EngineFailed(f"{self.name} ended with {status}: {said}")
        return line


@contextmanager
def running(engine: DecodingEngine, job: DecodingJob) -> Iterator[RunningEngine]:
    """An engine in a process of its own, its thread pools as large as asked and no larger. Raises EngineFailed."""
    pools = {name: str(job.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtests.peers.decoding_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            env=child_environment() | pools,
        )
        try:
            yield RunningEngine(engine.name, process, log, job)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It has nothing to save: asked to end, and ended if it does not."""
    process.terminate()
    try:
        process.communicate(timeout=STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()

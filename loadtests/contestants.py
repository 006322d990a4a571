"""Who runs in a race: servers asked by `wrk`, and the bare engine as the limit that no server can pass."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from loadtests.children import ROOT, child_environment
from loadtests.errors import EngineFailed
from loadtests.sentences import classify_body
from loadtests.turns import Sample
from loadtests.wrk import Wrk, write_script


class Contestant(Protocol):
    """Answers sentences, and can be measured at it."""

    @property
    def name(self) -> str:
        """What the report calls it."""

    def run(self, connections: int, seconds: int) -> Sample:
        """One turn under a load of so many callers."""


@dataclass(frozen=True)
class ServerContestant:
    """A server under `wrk`; `script` carries the sentences and the headers."""

    name: str
    url: str
    headers: Mapping[str, str]
    wrk: Wrk
    script: Path

    def run(self, connections: int, seconds: int) -> Sample:
        """So many connections, each with one request under way. Raises WrkFailed."""
        return self.wrk.run(self.url, self.script, connections, seconds)


def server_contestant(
    name: str, url: str, headers: Mapping[str, str], wrk: Wrk, folder: Path, texts: Sequence[str]
) -> ServerContestant:
    """A contestant that is sent the texts in turn as `POST /classify`."""
    script = write_script(folder, "/classify", headers, [classify_body(text) for text in texts])
    return ServerContestant(name, url, headers, wrk, script)


@dataclass(frozen=True)
class EngineContestant:
    """The variant without HTTP: one caller at one connection, else as many processes as given, one thread each."""

    name: str
    variant: Path
    sentences: Path
    processes: int

    def run(self, connections: int, seconds: int) -> Sample:
        """Starts the callers, lets them load and warm up, and then run at once. Raises EngineFailed."""
        callers = 1 if connections == 1 else self.processes
        command = [sys.executable, "-m", "loadtests.peers.engine", str(self.variant), str(self.sentences), str(seconds)]
        with ExitStack() as stack:
            children = [stack.enter_context(_child(command)) for _ in range(callers)]
            if any(_line(child) != "ready\n" for child in children):
                raise EngineFailed("the bare engine could not be measured: a caller ended before it was ready")
            for child in children:
                assert child.stdin is not None, "it is a pipe"
                child.stdin.write("go\n")
                child.stdin.flush()
            lines = [_line(child) for child in children]
            if not all(lines):
                raise EngineFailed("the bare engine could not be measured: a caller ended without its latencies")
            return pooled([json.loads(line) for line in lines], seconds)


def pooled(latencies_s: Sequence[Sequence[float]], seconds: float) -> Sample:
    """One sample of what several callers measured in the same `seconds`."""
    every = np.concatenate([np.asarray(one, dtype=np.float64) for one in latencies_s])
    if not every.size:
        return Sample(0, 0, seconds, 0.0, 0.0, 0.0)
    p50, p90, p99 = (float(value) for value in np.percentile(every, (50, 90, 99)))
    return Sample(int(every.size), 0, seconds, p50, p90, p99)


def write_sentences(folder: Path, texts: Sequence[str]) -> Path:
    """The texts as the engine's callers read them."""
    path = folder / "sentences.json"
    path.write_text(json.dumps(list(texts)), encoding="utf-8")
    return path


def _child(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=child_environment()
    )


def _line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None, "it is a pipe"
    return child.stdout.readline()

"""A gateway as a user runs it, for the live tests: `punctual serve` over small checkpoints and two of the starter's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import psutil
import small_checkpoints
import small_seq2seq

ENTRY = """
  - name: {name}
    task: classify
    tier: {tier}
    family: {family}
    source: ./{name}
    precision: [fp32]
    quality: {{metric: accuracy, value: {quality}, data_set: small, reference: made by the tests}}
    licence: Apache-2.0
"""
SUMMARIZER = """
  - name: {name}
    task: summarize
    tier: {tier}
    family: {family}
    source: {source}
    precision: [{precision}]
    quality: {{metric: ROUGE-1, value: {rank}, data_set: small, reference: made by the tests}}
    licence: Apache-2.0"""
MARK = "PUNCTUAL_RUN_FOLDER"


@dataclass(frozen=True)
class Live:
    """A running gateway: where it answers and which process owns it."""

    url: str
    process: subprocess.Popen[str]
    log: Path

    def family(self) -> list[psutil.Process]:
        """Every process that was started for this gateway, whatever its title or parent."""
        marks = {
            folder
            for process in psutil.Process(self.process.pid).children(recursive=True)
            if (folder := mark_of(process))
        }
        return [process for process in psutil.process_iter() if mark_of(process) in marks]

    def replica(self, checkpoint: str) -> psutil.Process:
        """The process of a checkpoint's replica; Ray puts the deployment's name into its title."""
        title = f"ServeReplica:punctual:{checkpoint}"
        return next(process for process in self.family() if title in " ".join(process.cmdline()))


def mark_of(process: psutil.Process) -> str | None:
    """The run folder that a process inherited, if it still runs and has one."""
    try:
        return process.environ().get(MARK)
    except psutil.Error:
        return None


def write_catalog(folder: Path) -> Path:
    """A catalog of small checkpoints of the real architectures, made beside it, and the starter's two extractive ones.

    `slow` and `fast` classify; `reader` and `ranker` pick sentences; `writer` writes, of the domain `news` alone.
    """
    entries = [("slow", "quality", "BERT", 90.0), ("fast", "realtime", "DistilBERT", 80.0)]
    for name, _, family, _ in entries:
        small_checkpoints.write_texts(
            small_checkpoints.make_checkpoint(folder / name, family.lower()), small_checkpoints.sentences(200)
        )
    rows = "".join(ENTRY.format(name=n, tier=t, family=f, quality=q) for n, t, f, q in entries)
    writer = small_seq2seq.make_seq2seq_checkpoint(folder / "writer", "bart")
    lines = (json.dumps({"text": text}) + "\n" for text in small_seq2seq.articles(40))
    (writer / "verification.jsonl").write_text("".join(lines))
    summarizers = [
        ("reader", "realtime", "extractive", "starter:extract-realtime", "int8, fp32"),
        ("ranker", "quality", "extractive", "starter:extract-quality", "int8, fp32"),
        ("writer", "quality", "BART", "./writer", "fp32"),
    ]
    for rank, (name, tier, family, source, precision) in enumerate(summarizers, start=1):
        rows += SUMMARIZER.format(name=name, tier=tier, family=family, source=source, precision=precision, rank=rank)
    rows += "\n    domain: news\n"
    catalog = folder / "catalog.yaml"
    catalog.write_text(f"name: small\ncheckpoints:{rows}")
    return catalog


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(catalog: Path, cache: Path, port: int, log: Path, *options: str) -> Live:
    """Starts `punctual serve`, with more options where given, and returns at once."""
    command = [sys.executable, "-m", "punctual", "serve", "--catalog", str(catalog), "--cache", str(cache)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port), *options],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    return Live(f"http://127.0.0.1:{port}", process, log)


def await_ready(live: Live, within_s: float = 240.0) -> None:
    """Waits until the command has said so and `/readyz` agrees; fails with its output where that does not come."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if live.process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{live.url}/readyz", timeout=2):
                if "ready at" in live.log.read_text():
                    return
                time.sleep(0.1)
        except (urllib.error.HTTPError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"the gateway did not become ready:\n{live.log.read_text()}")


def stop(live: Live) -> int:
    """Ctrl-C, as a terminal sends it; the exit status."""
    if live.process.poll() is None:
        os.kill(live.process.pid, signal.SIGINT)
    try:
        return live.process.wait(timeout=60)
    finally:
        live.process.kill()

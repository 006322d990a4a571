"""A gateway as a user runs it, for the live tests: `punctual serve` over small checkpoints and two of the starter's."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import psutil
import small_checkpoints
import small_seq2seq
import yaml
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from small_extractive import make_extractive_checkpoint
from waiting import wait_until

from exporters.preparing.prepare import prepare
from gateway.catalogs.catalog import load_catalog

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
        """Return every process that was started for this gateway, whatever its title or parent."""
        marks = {
            folder
            for process in psutil.Process(self.process.pid).children(recursive=True)
            if (folder := mark_of(process))
        }
        return [process for process in psutil.process_iter() if mark_of(process) in marks]

    def replica(self, checkpoint: str) -> psutil.Process:
        """Return the process of a checkpoint's replica; Ray puts the deployment's name into its title."""
        title = f"ServeReplica:punctual:{checkpoint}"
        return next(process for process in self.family() if title in " ".join(process.cmdline()))


def mark_of(process: psutil.Process) -> str | None:
    """Return the run folder that a process inherited, if it still runs and has one."""
    try:
        return process.environ().get(MARK)
    except psutil.Error:
        return None


def write_catalog(folder: Path) -> Path:
    """Write a catalog of small checkpoints, made beside it, and one of the starter's.

    `slow` and `fast` classify; `reader` and `ranker`, the starter's, extract sentences; `writer` writes, of the domain
    `news` alone.
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
    make_extractive_checkpoint(folder / "reader")
    summarizers = [
        ("reader", "realtime", "extractive", "./reader", "fp32"),
        ("ranker", "quality", "extractive", "starter:extract-realtime", "int8, fp32"),
        ("writer", "quality", "BART", "./writer", "fp32"),
    ]
    for rank, (name, tier, family, source, precision) in enumerate(summarizers, start=1):
        rows += SUMMARIZER.format(name=name, tier=tier, family=family, source=source, precision=precision, rank=rank)
    rows += "\n    domain: news\n"
    catalog = folder / "catalog.yaml"
    catalog.write_text(f"name: small\ncheckpoints:{rows}")
    return catalog


def narrowed(catalog: Path, *names: str) -> Path:
    """Write a catalog of these checkpoints alone beside the other one: a gateway starts faster with fewer."""
    document = yaml.safe_load(catalog.read_text())
    document["checkpoints"] = [entry for entry in document["checkpoints"] if entry["name"] in names]
    path = catalog.with_name(f"{'-'.join(names)}.yaml")
    path.write_text(yaml.safe_dump(document))
    return path


def make_variants(catalog: Path, cache: Path) -> None:
    """Make every variant beforehand, so that no checkpoint comes later than the gateway."""
    said = StringIO()
    folders = prepare(load_catalog(catalog), cache, Console(file=said))
    assert len(folders) == len(load_catalog(catalog).checkpoints), said.getvalue()


def free_port() -> int:
    """Return a port that nothing listens on at the moment.

    The clients of the gateway need its port before it listens. The port is below those that the kernel
    hands out, so that no server or client of another test gets it meanwhile.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_768), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("of a hundred ports none is free")


def start(catalog: Path, cache: Path, port: int, log: Path, *options: str) -> Live:
    """Start `punctual serve` with these options and return at once."""
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


UNUSUAL = 'ulimit -n 256; exec "$@" <&-'
"""Shell: few files may be open, and the standard input is closed."""


def start_unusually(catalog: Path, cache: Path, port: int, folder: Path) -> Live:
    """Start `punctual serve` on IPv6 where much is unusual, from an empty folder; return at once.

    The environment has little, and a proxy that nobody answers for. The temporary folder has a space, a `#` and a long
    name. The current folder has packages of the gateway's own names, the locale is C.
    """
    temporary, current = folder / ("a #" * 20), folder / "current"
    temporary.mkdir()
    for shadow in ("gateway", "deployments", "exporters", "tokenizers", "ray"):
        (current / shadow).mkdir(parents=True)
        (current / shadow / "__init__.py").write_text("raise ImportError('taken from the current folder')")
    command = [str(Path(sys.executable).with_name("punctual")), "serve", "--catalog", str(catalog)]
    log = folder / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", UNUSUAL, "sh", *command, "--cache", str(cache), "--port", str(port), "--host", "::1"],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=current,
            env={
                "PATH": os.environ["PATH"],
                "LC_ALL": "C",
                "TMPDIR": str(temporary),
                **dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"), "http://127.0.0.1:9"),
            },
        )
    return Live(f"http://[::1]:{port}", process, log)


def await_ready(live: Live) -> None:
    """Wait until the command and `/readyz` say ready, with every replica up; fail with the output if they never do.

    Checkpoints that are still to come are not waited for.
    """

    def ended_or_ready() -> bool:
        if live.process.poll() is not None:
            return True
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{live.url}/readyz", timeout=60) as answer:
            return not json.load(answer)["missing"] and "ready at" in live.log.read_text()
        return False

    wait_until(ended_or_ready, 600, lambda: live.log.read_text())
    assert live.process.poll() is None, f"the gateway did not become ready:\n{live.log.read_text()}"


def hang_up(live: Live, path: str, body: object, **headers: str) -> None:
    """Send a request and close the connection once the gateway has it as its only one."""
    wait_until(lambda: underway(live) == 0)
    content = json.dumps(body).encode()
    lines = {"Host": "localhost", "Content-Length": str(len(content)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    with socket.create_connection(("127.0.0.1", int(live.url.rpartition(":")[2]))) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content)
        wait_until(lambda: underway(live) == 1)


def underway(live: Live) -> float:
    """Return how many requests the gateway has at this moment."""
    with urllib.request.urlopen(f"{live.url}/metrics", timeout=60) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return sum(one.value for family in families for one in family.samples if one.name == "punctual_requests_underway")


def stop(live: Live) -> int:
    """Interrupt the gateway as Ctrl-C does; return its exit status."""
    if live.process.poll() is None:
        os.kill(live.process.pid, signal.SIGINT)
    try:
        return live.process.wait(timeout=240)
    finally:
        live.process.kill()

"""Servers as processes: awaited until ready, queried, and ended; one that does not start is an error."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from small_variants import LABELS, write_variant

from gateway.model.manifest import write_manifest
from loadtests.bench.peers.servers import fastapi, peer
from loadtests.bench.peers.wrk import Wrk
from loadtests.bench.speed import check_same_answers
from loadtests.errors import OtherAnswers, ServerFailed

HELD = """
import sys, threading, punctual
from loadtests.bench.peers.servers import free_port, started

@punctual.app.command()
def hold():
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    with started("held", command, f"http://127.0.0.1:{port}", "/") as server:
        print(server.process.pid, flush=True)
        threading.Event().wait()

sys.exit(punctual.main(["hold"]))
"""
"""A program with a command that serves until it is ended."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_command_that_a_signal_ends_leaves_no_server_behind(number: signal.Signals, tmp_path: Path) -> None:
    """A command ends what it has started, whichever signal ends it."""
    with subprocess.Popen([sys.executable, "-c", HELD], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as command:
        assert command.stdout is not None
        served = psutil.Process(int(command.stdout.readline()))
        try:
            command.send_signal(number)
            assert command.wait(60) == 128 + number
        finally:
            command.kill()
    assert not served.is_running()


@pytest.mark.parametrize(("threads", "name"), [(1, "fastapi-1"), (0, "fastapi-spins")])
def test_a_server_answers_as_its_variant_does_and_is_gone_afterwards(tmp_path: Path, threads: int, name: str) -> None:
    """A FastAPI server gives its variant's answers and ends with its context; other answers stop a race."""
    variant, swapped = tmp_path / "variant", tmp_path / "swapped"
    write_variant(variant)
    manifest = write_variant(swapped)
    write_manifest(swapped, manifest.model_copy(update={"labels": LABELS[::-1]}))
    with fastapi(variant, threads) as server:
        asked = {server.name: Wrk("wrk", server.url, {}, tmp_path / "unused")}
        check_same_answers(asked, variant, ["good film", "a very bad film."])
        with pytest.raises(OtherAnswers, match=f"{name} answers"):
            check_same_answers(asked, swapped, ["good film"])
        family = server.family()
    assert not any(psutil.pid_exists(one.pid) and one.is_running() for one in family)


def test_litserve_answers_as_the_variant_does(tmp_path: Path) -> None:
    """The peer behind LitServe gives its variant's answers; it is an extra of its own."""
    pytest.importorskip("litserve", reason="pip install 'punctual[peers]' brings LitServe")
    write_variant(tmp_path / "variant")
    with peer("litserve", tmp_path / "variant") as server:
        asked = {server.name: Wrk("wrk", server.url, {}, tmp_path / "unused")}
        check_same_answers(asked, tmp_path / "variant", ["good film", "a very bad film."])


def test_a_server_that_ends_at_once_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    """A server that ends at once, here for want of its variant, is an error with the end of its log."""
    with pytest.raises(ServerFailed, match=r"(?s)fastapi-1 ended with 1: .*nowhere"), fastapi(tmp_path / "nowhere", 1):
        pass

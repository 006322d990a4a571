"""The template and its workers: a fork has what the process that asked for it had, and nothing of Ray's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from deployments.serve import worker
from deployments.serve.template import SOCKET, rays_own, template

TELLS = """
import json, os, sys
modules = [name for name in ("ray", "psutil", "gateway.service", "deployments.replica.replica") if name in sys.modules]
threads = len(os.listdir("/proc/self/task"))
print(json.dumps([sys.argv, os.environ.get("OF_THIS_ONE"), os.getcwd(), modules, threads, os.getppid(), __name__]))
print("to the other stream", file=sys.stderr)
"""
"""What takes the place of Ray's script: it tells what it is."""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script in the place of Ray's; the environment is as it was afterwards."""
    for name in (worker.TEMPLATE, worker.RAYS_OWN):
        monkeypatch.setenv(name, "")
    path = tmp_path / "tells.py"
    path.write_text(TELLS)
    return path


@pytest.fixture
def opened(script: Path, tmp_path: Path) -> Iterator[psutil.Process]:
    """The process of an open template, whose workers run the script."""
    before = set(psutil.Process().children())
    with template(tmp_path):
        os.environ[worker.RAYS_OWN] = str(script)
        (process,) = set(psutil.Process().children()) - before
        yield process
    assert not process.is_running()


def asked(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Starts a worker as Ray does, and reads its streams to their end."""
    command = [sys.executable, worker.__file__, *arguments]
    environment = os.environ | {"OF_THIS_ONE": "\udcff é"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)


def test_workers_are_forks_with_all_that_was_asked_for(opened: psutil.Process, script: Path, tmp_path: Path) -> None:
    """Each has its arguments, environment, folder and streams; our modules are there, and nothing of Ray's."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for number in range(2):
        done = asked(folder, "--number", str(number))
        told, variable, where, modules, threads, parent, name = json.loads(done.stdout)
        assert told == [str(script), "--number", str(number)] and variable == "\udcff é" and where == str(folder)
        assert modules == ["gateway.service", "deployments.replica.replica"]
        assert threads == 1, "a process with threads cannot be forked"
        assert parent == opened.pid and name == "__main__"
        assert done.stderr == "to the other stream\n"


def test_without_a_template_a_worker_is_rays_own(script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that died costs its gateway nothing but time."""
    monkeypatch.setenv(worker.TEMPLATE, str(tmp_path / SOCKET))
    monkeypatch.setenv(worker.RAYS_OWN, str(script))
    told, _, _, modules, *_ = json.loads(asked(tmp_path, "one").stdout)
    assert told == [str(script), "one"] and not modules


def test_what_asks_wrongly_costs_the_next_nothing(opened: psutil.Process, tmp_path: Path) -> None:
    """Who hangs up, or sends no sense, gets no worker; who comes after it does."""
    for sent in (b"", b"\nnonsense"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.connect(os.environ[worker.TEMPLATE])
            asking.sendall(sent)
    assert json.loads(asked(tmp_path).stdout)[5] == opened.pid


def test_the_script_in_whose_place_it_stands_is_rays() -> None:
    """Ray's own worker is where a fork expects it."""
    assert "worker.main_loop()" in rays_own().read_text()

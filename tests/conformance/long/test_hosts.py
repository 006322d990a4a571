"""Hosts that take long or need root: a path with spaces, a folder that runs nothing, a watched network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import watched
from live import Live, await_ready, free_port, narrowed, stop

ROOT = Path(__file__).parents[3]


@pytest.fixture
def lone_catalog(small_catalog: tuple[Path, Path]) -> tuple[Path, Path]:
    """A catalog of one checkpoint, and the cache with its variant."""
    catalog, cache = small_catalog
    return narrowed(catalog, "slow"), cache


@pytest.fixture
def noexec(tmp_path: Path) -> Iterator[Path]:
    """A folder of which no file can be run."""
    folder = tmp_path / "noexec"
    folder.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    mounting = [str(mount), "-t", "tmpfs", "-o", "noexec,size=256m", "tmpfs", str(folder)]
    if os.geteuid() or not (mount and umount) or subprocess.run(mounting, check=False).returncode:
        pytest.skip("only root may mount a tmpfs, and not in every container")
    try:
        yield folder
    finally:
        subprocess.run([umount, "--lazy", str(folder)], check=True)


def serves(python: Path, lone_catalog: tuple[Path, Path], folder: Path, **environment: str) -> None:
    """Fail unless a gateway of this Python becomes ready, answers, and ends with 0."""
    catalog, cache = lone_catalog
    port, log = free_port(), folder / "log"
    command = [python, "-m", "punctual", "serve", "--catalog", catalog, "--cache", cache, "--port", str(port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            cwd=folder,
            env={"PATH": os.environ["PATH"], **environment},
        )
    one = Live(f"http://127.0.0.1:{port}", process, log)
    try:
        await_ready(one)
        assert httpx.post(f"{one.url}/classify", json={"inputs": "a good film"}, timeout=60).status_code == 200
    finally:
        status = stop(one)
    assert status == 0 and "Traceback" not in log.read_text(), log.read_text()


def test_an_environment_may_lie_anywhere(lone_catalog: tuple[Path, Path], tmp_path: Path) -> None:
    """A gateway serves from an environment whose path has spaces and letters beyond ASCII, and without a HOME."""
    folder = tmp_path / "ein Ort für ‘alles’ #1"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    (packages / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
    serves(python, lone_catalog, tmp_path)


def test_nothing_is_run_from_the_temporary_folder(
    lone_catalog: tuple[Path, Path], noexec: Path, tmp_path: Path
) -> None:
    """A gateway serves where no file of its temporary folder can be run."""
    serves(Path(sys.executable), lone_catalog, tmp_path, TMPDIR=str(noexec), PYTHONPATH=str(ROOT))


def test_nothing_is_asked_of_the_network(lone_catalog: tuple[Path, Path], tmp_path: Path) -> None:
    """From its start to its stop a gateway sends no packet out, and asks for no name."""
    catalog, cache = lone_catalog
    apart = ["unshare", "--net"]
    if os.geteuid() or not shutil.which("ip") or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("only root may have a network of its own, and not in every container")
    support = os.pathsep.join(
        [str(ROOT), *map(str, [ROOT / "tests" / "support", *(ROOT / "tests" / "support").iterdir()])]
    )
    run = subprocess.run(
        [*apart, sys.executable, watched.__file__, str(catalog), str(cache), str(tmp_path / "log")],
        env=os.environ | {"PYTHONPATH": support},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert told == {"status": 0, "seen": [f"{watched.SHOWN}:{watched.DNS}"]}, (tmp_path / "log").read_text()

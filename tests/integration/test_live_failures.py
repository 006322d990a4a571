"""What happens to requests and processes when a part of the gateway dies or is stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from live import Live, await_ready, free_port, mark_of, narrowed, start, start_unusually, stop
from loaded_gateway import under_load
from waiting import wait_until

from gateway.model.manifest import MANIFEST_NAME

pytestmark = pytest.mark.ray

NOT_NEEDED = ("monitor.py", "log_monitor.py", "dashboard.py")
"""Processes that Ray starts unless it is kept from it: its autoscaler, what copies logs, and its API server."""


@pytest.fixture
def lone_catalog(small_catalog: tuple[Path, Path]) -> tuple[Path, Path]:
    """A catalog of one checkpoint, for gateways that are started to be stopped, and the cache with its variant."""
    catalog, cache = small_catalog
    return narrowed(catalog, "slow"), cache


def family_of(live: Live) -> list[psutil.Process]:
    """The gateway's processes, the command's own included."""
    command = psutil.Process(live.process.pid)
    return [command, *command.children(recursive=True)]


def require_gone(family: list[psutil.Process], port: int) -> None:
    """Fail if one of the processes runs, or something listens on the port."""
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a past connection in TIME_WAIT is no listener
        probe.bind(("127.0.0.1", port))


def test_a_killed_replica_costs_no_answer_where_another_checkpoint_can_give_it(live: Live) -> None:
    """A killed quality replica costs no answer: other checkpoints answer, and the replica is back by itself."""
    statuses = under_load(live, live.replica("slow"), lambda statuses: statuses.total() > 200)
    assert set(statuses) == {200}, statuses
    await_ready(live)
    answer = httpx.post(
        f"{live.url}/classify", json={"inputs": "a good film"}, headers={"X-Checkpoint": "slow"}, timeout=60
    )
    assert answer.status_code == 200


def test_a_killed_replica_that_is_pinned_is_said_to_be_unavailable(live: Live) -> None:
    """If a pinned checkpoint's replica is killed, clients get 503 with Retry-After, and answers once it is back."""
    pinned = {"X-Checkpoint": "fast"}
    statuses = under_load(live, live.replica("fast"), lambda statuses: statuses[503] > 0, **pinned)
    assert set(statuses) == {200, 503}, statuses
    await_ready(live)
    answer = httpx.post(f"{live.url}/classify", json={"inputs": "a good film"}, headers=pinned, timeout=60)
    assert answer.status_code == 200


def test_sigterm_to_every_process_leaves_nothing_behind(lone_catalog: tuple[Path, Path], tmp_path: Path) -> None:
    """Systemd's stop, a SIGTERM to each process at once, ends the command with status 0 and leaves nothing.

    No process, port or run folder is left, and the stop is said in one line. Who asks meanwhile is told so.
    """
    catalog, cache = lone_catalog
    port = free_port()
    one = start(catalog, cache, port, tmp_path / "log")
    try:
        await_ready(one)
        family = family_of(one)
        folders = {mark for process in family if (mark := mark_of(process))}
        assert not [part for one in family for part in one.cmdline() if Path(part).name in NOT_NEEDED]
        for process in family:
            process.terminate()
        told: set[tuple[int, str | None]] = set()

        def ended() -> bool:
            with suppress(httpx.TransportError):
                answer = httpx.get(f"{one.url}/checkpoints", timeout=60)
                told.add((answer.status_code, answer.headers.get("Retry-After")))
            return one.process.poll() is not None

        wait_until(ended, 240)
        status = one.process.wait(timeout=240)
    finally:
        stop(one)
    assert status == 0, one.log.read_text()
    assert (503, "1") in told <= {(200, None), (503, "1")}
    require_gone(family, port)
    assert folders and not any(Path(folder).exists() for folder in folders)
    assert "ERROR" not in one.log.read_text()


def test_an_unusual_host_serves_and_its_first_answer_is_right(lone_catalog: tuple[Path, Path], tmp_path: Path) -> None:
    """A gateway serves whatever its environment, limits and current folder; until it answers it says that it starts."""
    catalog, cache = lone_catalog
    port = free_port()
    one = start_unusually(catalog, cache, port, tmp_path)
    answers: list[httpx.Response] = []
    starting: list[httpx.Response] = []

    def answered() -> bool:
        with suppress(httpx.ConnectError):
            answer = client.post(f"{one.url}/classify", json={"inputs": "a good film"})
            (starting if answer.headers.get("Retry-After") else answers).append(answer)
        return bool(answers) or one.process.poll() is not None

    try:
        with httpx.Client(trust_env=False, timeout=60) as client:
            wait_until(answered, 240, lambda: one.log.read_text())
        assert answers and answers[0].status_code == 200, one.log.read_text()
        assert {(early.status_code, early.json()["code"]) for early in starting} <= {
            (503, "starting"),
            (503, "checkpoint_unavailable"),
        }
        assert starting and starting[0].json()["code"] == "starting"
        wait_until(lambda: f"ready at {one.url}" in one.log.read_text(), 240)
        family = family_of(one)
        assert not [process for process in family if "dashboard.py" in " ".join(process.cmdline())]
        quiet = {process.environ().get("ORT_DISABLE_TELEMETRY") for process in one.family()}
    finally:
        status = stop(one)
    assert quiet == {"1"}, "ONNX Runtime would look up a telemetry host, and Ray's API server the metadata of clouds"
    assert status == 0, one.log.read_text()
    require_gone(family, port)
    assert "Traceback" not in one.log.read_text()


def test_a_signal_during_the_start_ends_it(lone_catalog: tuple[Path, Path], tmp_path: Path) -> None:
    """A start ends at a SIGTERM to its group, as by `timeout`, with the signal's status, and leaves nothing."""
    catalog, cache = lone_catalog
    port = free_port()
    one = start(catalog, cache, port, tmp_path / "log")
    try:
        wait_until(lambda: "starting Ray Serve" in one.log.read_text(), 240)
        wait_until(lambda: any(process.name() == "raylet" for process in family_of(one)), 240)
        family = family_of(one)
        os.killpg(one.process.pid, signal.SIGTERM)
        assert one.process.wait(timeout=240) == 128 + signal.SIGTERM
    finally:
        stop(one)
    require_gone(family, port)
    assert "Traceback" not in one.log.read_text()


def test_the_death_of_a_part_that_cannot_be_replaced_ends_the_gateway(
    lone_catalog: tuple[Path, Path], tmp_path: Path
) -> None:
    """Without Ray's node process nothing can be replaced: the gateway says so, ends, and leaves nothing."""
    catalog, cache = lone_catalog
    port = free_port()
    one = start(catalog, cache, port, tmp_path / "log")
    try:
        await_ready(one)
        family = family_of(one)
        next(process for process in family if process.name() == "raylet").kill()
        assert one.process.wait(timeout=240) == 1
    finally:
        stop(one)
    require_gone(family, port)
    assert "Ray's node process (raylet) has died" in one.log.read_text()


def test_what_a_killed_gateway_left_is_cleared_by_the_next(lone_catalog: tuple[Path, Path], tmp_path: Path) -> None:
    """The start after a SIGKILL ends the orphaned Ray and ingress, and serves on the same port."""
    catalog, cache = lone_catalog
    port = free_port()
    dead = start(catalog, cache, port, tmp_path / "dead.log")
    try:
        await_ready(dead)
        family = dead.family()
    finally:
        dead.process.kill()
        dead.process.wait()
    heir = start(catalog, cache, port, tmp_path / "heir.log")
    try:
        await_ready(heir)
        assert not [process for process in family if process.is_running()]
    finally:
        status = stop(heir)
    assert status == 0, "Ctrl-C ends a gateway that is ready with status 0"


def test_a_taken_port_is_said_in_a_sentence(lone_catalog: tuple[Path, Path], tmp_path: Path, live: Live) -> None:
    """A second gateway on a taken port says so in one sentence and ends, and the first goes on."""
    catalog, cache = lone_catalog
    second = start(catalog, cache, int(live.url.rpartition(":")[2]), tmp_path / "log")
    assert second.process.wait(timeout=240) == 1
    said = second.log.read_text()
    assert "in use" in said and "Traceback" not in said
    assert httpx.get(f"{live.url}/healthz", timeout=60).status_code == 200


def test_a_tampered_variant_is_not_served(lone_catalog: tuple[Path, Path], tmp_path: Path) -> None:
    """A variant whose manifest has a wrong answer keeps the gateway from being ready, and the error names it."""
    catalog, cache = lone_catalog
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    manifest = next(copy.glob(f"variants/slow/*/{MANIFEST_NAME}"))
    document = json.loads(manifest.read_bytes())
    document["self_test"]["golden"][0]["logits"][0] += 1.0
    manifest.write_text(json.dumps(document))
    one = start(catalog, copy, free_port(), tmp_path / "log")
    try:
        assert one.process.wait(timeout=600) == 1
    finally:
        stop(one)
    said = one.log.read_text()
    assert "slow" in said and "golden input 0" in said and "Traceback" not in said

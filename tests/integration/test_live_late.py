"""Checkpoints that come later than their gateway: prepared behind it, and taken in while it serves."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from filelock import FileLock
from live import ENTRY, Live, await_ready, free_port, start, stop
from loaded_gateway import loaded
from scraped import total
from small_checkpoints import make_checkpoint
from small_mpnet import write_adapter
from waiting import wait_until

from exporters.preparing.prepare import LATE

pytestmark = pytest.mark.ray

LARGE = 1_000_000_000
"""Bytes that the base of the late checkpoint says that it has: no start waits for so much."""

WITHIN_S = 300.0
BODY = {"inputs": "a good film"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels of the late checkpoint's base."""
    return tmp_path_factory.mktemp("wheels") / "index"


@pytest.fixture(scope="module")
def catalog(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog of two small checkpoints, and of a better one whose base must be fetched."""
    folder = tmp_path_factory.mktemp("catalog")
    index.mkdir()
    make_checkpoint(folder / "small")
    make_checkpoint(folder / "even", "bert")
    write_adapter(folder / "late", index, LARGE)
    entries = [
        ("late", "quality", "MPNet", 90.0),
        ("even", "balanced", "BERT", 85.0),
        ("small", "realtime", "DistilBERT", 80.0),
    ]
    rows = "".join(ENTRY.format(name=n, tier=t, family=f, quality=q) for n, t, f, q in entries)
    path = folder / "catalog.yaml"
    path.write_text(f"name: late\ncheckpoints:{rows}")
    return path


@pytest.fixture(autouse=True)
def registry(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To pip, these wheels are the whole package registry."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))


def coming(live: Live) -> list[dict[str, Any]]:
    """What `/readyz` of a ready gateway says is still to come."""
    answer = httpx.get(f"{live.url}/readyz", timeout=60)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["coming"]
    return found


def classify(live: Live, **headers: str) -> httpx.Response:
    """Classifies one text with a generous budget."""
    return httpx.post(f"{live.url}/classify", json=BODY, headers={"X-Latency-SLA-Ms": "60000", **headers}, timeout=60)


def says_what_is_coming(live: Live) -> None:
    """Checks what a gateway says while two checkpoints are still to come, and that it serves without them."""
    told = coming(live)
    assert {entry["checkpoint"] for entry in told} == {"even", "late"}
    assert all(entry["state"] in ("waiting", "preparing") and entry["reason"] for entry in told)
    shown = httpx.get(f"{live.url}/checkpoints", timeout=60).json()
    assert [entry["name"] for entry in shown["checkpoints"]] == ["small"]
    assert {entry["name"] for entry in shown["coming"]} == {"even", "late"}
    refused = classify(live, **{"X-Checkpoint": "late"})
    assert refused.status_code == 503 and refused.headers["Retry-After"]
    assert classify(live).headers["X-Checkpoint"] == "small"


def serves_all(live: Live) -> None:
    """Checks that both have joined: the best answers, each may be pinned, and scrapes have their replicas."""
    assert classify(live).headers["X-Checkpoint"] == "late"
    assert all(classify(live, **{"X-Checkpoint": name}).status_code == 200 for name in ("even", "late"))
    metrics = httpx.get(f"{live.url}/metrics", timeout=60).text
    assert total(metrics, "punctual_checkpoint_replicas_up", checkpoint="late") == 1.0
    assert total(metrics, "punctual_replica_up", deployment="late") == 1.0


def test_late_checkpoints_join_without_a_failed_request(catalog: Path, tmp_path: Path) -> None:
    """The gateway serves while others are prepared, takes each in under load, and has them at once the next time."""
    cache = tmp_path / "cache"
    cache.mkdir()
    held = FileLock(cache / LATE)
    held.acquire()
    one = start(catalog, cache, free_port(), tmp_path / "log")
    try:
        await_ready(one)
        says_what_is_coming(one)
        before = one.replica("small").pid
        with loaded(one) as statuses:
            held.release()
            wait_until(lambda: not coming(one), WITHIN_S, one.log.read_text)
            enough = statuses.total() + 200
            wait_until(lambda: statuses.total() > enough)
        assert set(statuses) == {200}, statuses
        assert one.replica("small").pid == before
        serves_all(one)
        wait_until(lambda: "late has joined" in one.log.read_text())
        said = one.log.read_text()
        assert said.index("even has joined") < said.index("late has joined"), "small ones come first"
    finally:
        stop(one)
    again = start(catalog, cache, free_port(), tmp_path / "again.log")
    try:
        await_ready(again)
        assert not coming(again) and classify(again).headers["X-Checkpoint"] == "late"
    finally:
        assert stop(again) == 0, again.log.read_text()


def test_a_gateway_serves_on_without_what_cannot_be_fetched(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint whose base cannot be fetched is said to have failed, with the reason, and the gateway serves on."""
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    one = start(catalog, tmp_path / "cache", free_port(), tmp_path / "log")
    try:
        await_ready(one)
        wait_until(lambda: [entry["state"] for entry in coming(one)] == ["failed"], WITHIN_S, one.log.read_text)
        assert coming(one)[0]["reason"] == "its weights, or those that it adapts, cannot be fetched"
        (shown,) = httpx.get(f"{one.url}/checkpoints", timeout=60).json()["coming"]
        assert (shown["name"], shown["state"]) == ("late", "failed")
        assert classify(one).headers["X-Checkpoint"] == "even"
        assert classify(one, **{"X-Checkpoint": "late"}).status_code == 503
        assert one.log.read_text().count("going on without late") == 1 and "Traceback" not in one.log.read_text()
    finally:
        assert stop(one) == 0, one.log.read_text()


def test_a_stop_ends_what_is_being_prepared(catalog: Path, tmp_path: Path) -> None:
    """SIGTERM while a checkpoint is prepared ends the command with status 0, and leaves no process, lock or folder."""
    cache = tmp_path / "cache"
    one = start(catalog, cache, free_port(), tmp_path / "log")
    try:
        await_ready(one)
        jobs: list[psutil.Process] = []

        def begun() -> bool:
            jobs[:] = [process for process in one.family() if "exporters.preparing.job" in process.cmdline()]
            return bool(jobs)

        wait_until(begun, WITHIN_S, one.log.read_text)
        family = one.family()
        os.kill(one.process.pid, signal.SIGTERM)
        assert one.process.wait(timeout=240) == 0, one.log.read_text()
    finally:
        stop(one)
    assert not [process for process in family if process.is_running()]
    with FileLock(cache / LATE).acquire(blocking=False):
        assert not [left for left in cache.rglob("*.partial-*") if left.is_dir()]

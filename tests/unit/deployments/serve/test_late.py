"""Late checkpoints: what is noted of each, how they are brought up in order, and when an ingress takes one in."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from fakes import EVEN, GRAND, MEDIANS_S, manifest
from waiting import wait_until
from worlds import world

from deployments.replica.prepared import NeverReady
from deployments.serve.late import Joining, Latecomers, Notes
from gateway.model.coming import Coming, ComingState
from gateway.model.manifest import VariantManifest

REASON = "its base cannot be fetched"


class Prepared:
    """Prepares what is named at once, or never; `gate` holds it until it is opened or stopped."""

    def __init__(
        self, names: Sequence[str], never: Sequence[str] = (), failed: Mapping[str, str] | None = None
    ) -> None:
        self.names, self.never, self.failed = names, never, failed or {}
        self.gate = threading.Event()
        self.gate.set()
        self.stopped = False

    def prepare(self, checkpoint: str) -> Path:
        """The folder, unless it never comes."""
        assert self.gate.wait(60)
        if self.stopped or checkpoint in self.never:
            raise NeverReady(f"{checkpoint}: /srv/secret cannot be had", REASON)
        return Path(checkpoint)

    def stop(self) -> None:
        """Ends the wait at the gate."""
        self.stopped = True
        self.gate.set()


class Stage:
    """Latecomers whose deployments and words are kept."""

    def __init__(self, path: Path, preparing: Prepared) -> None:
        self.preparing, self.read = preparing, Notes(path)
        self.deployed: list[tuple[str, Path]] = []
        self.said: list[str] = []
        self.refused: set[str] = set()
        self.latecomers = Latecomers(preparing, Notes(path), self.said.append)

    def deploy(self, checkpoint: str, variant: Path, stopping: threading.Event) -> None:
        """Deploys it, unless its replica does not start."""
        if checkpoint in self.refused:
            raise NeverReady(f"{checkpoint}: golden input 0", "its replica did not start")
        self.deployed.append((checkpoint, variant))

    def notes(self) -> dict[str, Coming]:
        """The notes as an ingress reads them."""
        return {one.checkpoint: one for one in self.read.read()}


def test_late_checkpoints_are_brought_up_in_order_and_each_is_noted(tmp_path: Path) -> None:
    """Each is prepared, noted as starting and deployed; one that fails is noted and said once, and the next goes on."""
    stage = Stage(tmp_path / "notes", Prepared(["one", "two", "three"], never=["two"], failed={"four": "no source"}))
    stage.latecomers.tell()
    stage.latecomers.start(stage.deploy)
    wait_until(lambda: len(stage.deployed) == 2)
    assert stage.deployed == [("one", Path("one")), ("three", Path("three"))]
    notes = stage.notes()
    assert {name: note.state for name, note in notes.items()} == {
        "one": ComingState.STARTING,
        "two": ComingState.FAILED,
        "three": ComingState.STARTING,
        "four": ComingState.FAILED,
    }
    assert (notes["two"].reason, notes["four"].reason) == (REASON, "no source")
    wait_until(lambda: "three has joined" in stage.said)
    assert sum("going on without two" in line for line in stage.said) == 1
    stage.latecomers.stop()


def test_what_will_not_come_is_told_before_anything_begins(tmp_path: Path) -> None:
    """A task whose only checkpoint cannot be had must not keep the gateway waiting, so its note is there at once."""
    stage = Stage(tmp_path / "notes", Prepared(["one"], failed={"four": "no source"}))
    stage.latecomers.tell()
    assert stage.notes() == {"four": Coming("four", ComingState.FAILED, "no source")} and stage.deployed == []


def test_a_replica_that_does_not_start_is_noted(tmp_path: Path) -> None:
    """If the replica of a late checkpoint is rejected, the note says that it failed."""
    stage = Stage(tmp_path / "notes", Prepared(["one"]))
    stage.refused.add("one")
    stage.latecomers.start(stage.deploy)
    wait_until(lambda: stage.notes()["one"].state is ComingState.FAILED)
    assert stage.notes()["one"].reason == "its replica did not start"
    stage.latecomers.stop()


def test_a_stop_ends_the_preparation_and_says_nothing_of_a_failure(tmp_path: Path) -> None:
    """A stop while one is prepared ends it, deploys nothing, and is no failure of the checkpoint."""
    preparing = Prepared(["one", "two"])
    preparing.gate.clear()
    stage = Stage(tmp_path / "notes", preparing)
    stage.latecomers.start(stage.deploy)
    wait_until(lambda: stage.notes()["one"].state is ComingState.PREPARING)
    stage.latecomers.stop()
    assert stage.deployed == [] and not any("going on" in line for line in stage.said)
    assert stage.notes()["one"].state is ComingState.PREPARING


def test_without_anything_late_nothing_is_said(tmp_path: Path) -> None:
    """If every checkpoint was ready at the start, there is no note and no word."""
    stage = Stage(tmp_path / "notes", Prepared([]))
    stage.latecomers.start(stage.deploy)
    stage.latecomers.stop()
    assert stage.notes() == {} and stage.said == []


@pytest.mark.virtual_time
async def test_an_ingress_takes_in_what_is_connected_and_no_sooner(tmp_path: Path) -> None:
    """A checkpoint joins once it is starting, a replica of it is connected, and one has told its manifest."""
    told, notes = world(coming=[EVEN, GRAND]), Notes(tmp_path / "notes")
    found: list[str] = []
    answers: dict[str, tuple[VariantManifest, Path] | None] = {GRAND: None}

    async def ask(checkpoint: str) -> tuple[VariantManifest, Path] | None:
        return answers[checkpoint]

    router = told.service.router
    joining = Joining(router, told.load, Notes(tmp_path / "notes"), found.append, ask)
    await joining.look()
    assert router.coming[GRAND] == Coming(GRAND) and found == []
    notes.write(Coming(GRAND, ComingState.STARTING, "soon"))
    await joining.look()
    assert router.coming[GRAND].reason == "soon" and found == [GRAND]
    told.up(GRAND)
    await joining.look()
    assert GRAND not in router.served, "nobody has told its manifest"
    answers[GRAND] = manifest(GRAND, MEDIANS_S[GRAND]), tmp_path
    await joining.look()
    assert GRAND in router.served and set(router.coming) == {EVEN}
    notes.write(Coming(EVEN, ComingState.FAILED, REASON))
    await joining.run()
    assert router.coming == {EVEN: Coming(EVEN, ComingState.FAILED, REASON)}, "it looks no longer: nothing can come"

"""Checkpoints that come later than the gateway: prepared behind it, deployed one by one, taken in by every ingress.

`punctual serve` writes a note about each (`Notes`), which ingresses read: one that is started anew learns of them too.
A late checkpoint is a Serve application of its own, so that nothing that serves is touched.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from deployments.replica.prepared import NeverReady
from deployments.replica.tokens import counters_of
from gateway.forecasting.lengths import estimated
from gateway.model.coming import Coming, ComingState

if TYPE_CHECKING:  # `punctual serve` need not import the request path
    from gateway.forecasting.load import LoadTracker
    from gateway.model.manifest import VariantManifest
    from gateway.router import Router

LOOK_S = 0.25
"""Seconds between an ingress's looks at the notes while a checkpoint is coming."""

ENDED_WITHIN_S = 10.0
"""Seconds that a stop waits for the thread that prepares."""

PREPARING = "its variant is being made, which takes minutes the first time"
STARTING = "a replica opens and tests its variant"

log = logging.getLogger("punctual.late")


class Notes:
    """The notes on late checkpoints, in a file. One process writes them, the ingresses read them."""

    def __init__(self, path: Path) -> None:
        """The file need not exist: then there are no notes."""
        self._path = path
        self._known: dict[str, Coming] = {}
        self._read_ns = 0

    def write(self, coming: Coming) -> None:
        """Replaces the note on one checkpoint."""
        self._known[coming.checkpoint] = coming
        beside = self._path.with_suffix(".new")
        beside.write_bytes(msgspec.json.encode(list(self._known.values())))
        beside.replace(self._path)

    def read(self) -> Sequence[Coming]:
        """The latest note on each checkpoint. A file that has not changed is not read again."""
        try:
            written_ns = self._path.stat().st_mtime_ns
            if written_ns != self._read_ns:
                notes = msgspec.json.decode(self._path.read_bytes(), type=list[Coming])
                self._known, self._read_ns = {one.checkpoint: one for one in notes}, written_ns
        except FileNotFoundError:
            return ()
        return tuple(self._known.values())


class Joining:
    """Takes late checkpoints into a router, each as soon as a replica of it is connected."""

    def __init__(
        self,
        router: Router,
        load: LoadTracker,
        notes: Notes,
        find: Callable[[str], None],
        ask: Callable[[str], Awaitable[tuple[VariantManifest, Path] | None]],
    ) -> None:
        """`find` lets the ingress look for replicas of a checkpoint; `ask` asks one for its manifest and folder."""
        self._router = router
        self._load = load
        self._notes = notes
        self._find = find
        self._ask = ask

    async def run(self) -> None:
        """Looks again and again until nothing more can come."""
        while any(one.expected for one in self._router.coming.values()):
            await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Reads the notes, and takes in what is connected."""
        for note in self._notes.read():
            self._router.told(note)
        for name, coming in list(self._router.coming.items()):
            if coming.state is not ComingState.STARTING:
                continue
            self._find(name)
            if self._load.replicas(name) and (variant := await self._ask(name)) is not None:
                manifest, folder = variant
                counters = await asyncio.to_thread(counters_of, {name: manifest}, {name: folder})
                self._router.join(name, manifest, counters.get(name, estimated))
                log.info("%s has joined", name)


class Preparing(Protocol):
    """Makes the variants of late checkpoints."""

    @property
    def names(self) -> Sequence[str]:
        """The late checkpoints, in the order in which they are to come."""

    @property
    def failed(self) -> Mapping[str, str]:
        """Checkpoints that will not come, with the reason."""

    def prepare(self, checkpoint: str) -> Path:
        """The folder of the checkpoint's variant. Blocks, for minutes. Raises NeverReady."""

    def stop(self) -> None:
        """Ends what is being made; `prepare` then raises NeverReady."""


class Deploy(Protocol):
    """Brings up one late checkpoint."""

    def __call__(self, checkpoint: str, variant: Path, stopping: threading.Event) -> None:
        """Returns once it answers requests, or at a stop. Raises NeverReady if its replica does not start."""


class Latecomers:
    """Brings the late checkpoints to a gateway that serves, one after the other, in a thread."""

    def __init__(self, preparing: Preparing, notes: Notes, say: Callable[[str], None]) -> None:
        """Prepares nothing before `start`."""
        self._preparing = preparing
        self._notes = notes
        self._say = say
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self) -> None:
        """Notes what will not come, before the gateway is ready: a task that has nothing else keeps it from that."""
        for name, reason in self._preparing.failed.items():
            self._notes.write(Coming(name, ComingState.FAILED, reason))

    def start(self, deploy: Deploy) -> None:
        """Begins, once the gateway is ready."""
        for name in self._preparing.names:
            self._notes.write(Coming(name))
        if self._preparing.names:
            self._say(f"still to come, prepared behind it: {', '.join(self._preparing.names)}")
            self._thread = threading.Thread(target=self._run, args=(deploy,), name="latecomers", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ends what is being prepared, and starts nothing more."""
        self._stopping.set()
        self._preparing.stop()
        if self._thread is not None:
            self._thread.join(ENDED_WITHIN_S)

    def _run(self, deploy: Deploy) -> None:
        for name in self._preparing.names:
            if self._stopping.is_set():
                return
            try:
                self._bring(name, deploy)
            except NeverReady as error:
                if not self._stopping.is_set():
                    self._notes.write(Coming(name, ComingState.FAILED, error.reason))
                    self._say(f"going on without {name}: {error}")

    def _bring(self, name: str, deploy: Deploy) -> None:
        self._notes.write(Coming(name, ComingState.PREPARING, PREPARING))
        variant = self._preparing.prepare(name)
        self._notes.write(Coming(name, ComingState.STARTING, STARTING))
        deploy(name, variant, self._stopping)
        if not self._stopping.is_set():
            self._say(f"{name} has joined")

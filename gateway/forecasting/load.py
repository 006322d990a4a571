"""The load tracker: how busy each replica is, by its last report, aged, plus what this gateway sent since.

The transport reports to it (`reported`, `left`, `dispatched`). The forecast reads the backlog, and the transport the
least loaded replica. It does no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from gateway.model.messages import LoadReport


class QueueAhead(Struct, frozen=True):
    """What a request would find at a replica: seconds of work, and the texts that share the engine by time slicing.

    `sharing` is None without time slicing. `companions` is the number of inputs of other requests, as long as this
    one's, that are expected in the same batch.
    """

    backlog_s: float
    sharing: int | None = None
    companions: int = 0

    def delay_s(self, service_time_s: float) -> float:
        """Queueing delay of a request with this service time, in seconds.

        With time slicing, each other text delays the request by at most the request's own service time.
        """
        if self.sharing is None:
            return self.backlog_s
        return min(self.backlog_s, self.sharing * service_time_s)


IDLE = QueueAhead(0.0)


@dataclass(slots=True)
class ReplicaLoad:
    """The last known backlog of one replica, in seconds of service time, as of `as_of_s` on this process's clock.

    `share` is the number of its node's cores for this gateway process; `callers` is the number of gateway processes.
    """

    backlog_s: float
    as_of_s: float
    draining: bool = False
    sharing: int | None = None
    memory_bytes: int = 0
    node: str = ""
    share: float = 1.0
    callers: int = 1
    lone: bool = False

    def backlog_at(self, now_s: float) -> float:
        """The backlog now: a replica works off one second per second."""
        return max(0.0, self.backlog_s - (now_s - self.as_of_s))


_NONE: Mapping[str, ReplicaLoad] = {}
_NOBODY: list[tuple[str, ReplicaLoad]] = []


class LoadTracker:
    """The load of every replica of every checkpoint. Only the event loop writes it, so it takes no lock."""

    def __init__(self) -> None:
        self._replicas: dict[str, dict[str, ReplicaLoad]] = {}
        self._cores: dict[tuple[str, ...], float] = {}
        self._up_now: dict[str, list[tuple[str, ReplicaLoad]]] = {}
        self._shared: set[str] = set()

    def left(self, checkpoint: str, replica: str) -> None:
        """Removes a replica whose connection is gone; it returns with its next report."""
        self._replicas.get(checkpoint, {}).pop(replica, None)
        self._cores.clear()
        self._count(checkpoint)

    def reported(self, checkpoint: str, replica: str, report: LoadReport, now_s: float, node: str = "") -> None:
        """Replaces what was estimated here by a replica's own report. The first report makes the replica available."""
        share = report.cores / max(report.callers, 1)
        load = ReplicaLoad(
            report.backlog_s,
            now_s,
            report.draining,
            report.sharing,
            report.memory_bytes,
            node,
            share,
            report.callers,
            report.lone,
        )
        known = self._replicas.setdefault(checkpoint, {})
        before = known.get(replica)
        if before is None or before.share != share or before.draining != report.draining:
            self._cores.clear()
        known[replica] = load
        self._count(checkpoint)

    def cores(self, checkpoints: tuple[str, ...]) -> float:
        """The cores for this gateway process on the nodes of these checkpoints' replicas; at least 1."""
        try:
            return self._cores[checkpoints]
        except KeyError:
            nodes: dict[str, float] = {}
            for checkpoint in checkpoints:
                for _, load in self._up(checkpoint):
                    nodes[load.node] = max(load.share, nodes.get(load.node, 0.0))
            return self._cores.setdefault(checkpoints, max(1.0, sum(nodes.values())))

    def dispatched(self, checkpoint: str, replica: str, service_time_s: float, now_s: float) -> None:
        """Adds work just sent, which no report can have counted yet."""
        load = self._replicas.get(checkpoint, {}).get(replica)
        if load is not None:
            load.backlog_s, load.as_of_s = load.backlog_at(now_s) + service_time_s, now_s
            load.sharing = None if load.sharing is None else load.sharing + 1

    def least_loaded(self, checkpoint: str, now_s: float) -> str | None:
        """The replica with the least backlog, among equals the first by name; None if none is up."""
        up = [(load.backlog_at(now_s), name) for name, load in self._up(checkpoint)]
        return min(up)[1] if up else None

    def backlog_s(self, checkpoint: str, now_s: float) -> float | None:
        """The backlog of the least loaded replica, in seconds; None if none is up."""
        return min((load.backlog_at(now_s) for _, load in self._up(checkpoint)), default=None)

    def ahead(self, checkpoint: str, now_s: float) -> QueueAhead | None:
        """What a request would find at the least loaded replica; None if none is up."""
        least_s, sharing = math.inf, None
        for load in self._replicas.get(checkpoint, _NONE).values():  # runs for every candidate, so it makes no calls
            backlog_s = load.backlog_s - (now_s - load.as_of_s)
            if backlog_s < least_s and not load.draining:
                least_s, sharing = backlog_s, load.sharing
        return None if least_s == math.inf else QueueAhead(least_s if least_s > 0.0 else 0.0, sharing)

    def others_s(self, checkpoint: str, now_s: float) -> float:
        """The backlog of the least loaded replica, in seconds, if other gateways send to it too; else 0.

        What this gateway sends waits before it is sent, so a replica that it alone sends to holds only its own work.
        """
        if checkpoint not in self._shared:
            return 0.0
        least_s, callers = math.inf, 1
        for _, load in self._up(checkpoint):
            if (backlog_s := load.backlog_at(now_s)) < least_s:
                least_s, callers = backlog_s, load.callers
        return least_s if callers > 1 else 0.0

    def makes_lone_runs(self, checkpoint: str) -> bool:
        """True if every replica that is up says that it makes lone runs."""
        return all(load.lone for _, load in self._up(checkpoint))

    def memory_bytes(self, checkpoint: str) -> int | None:
        """Resident memory of the largest replica, as last reported; None if none is up."""
        return max((load.memory_bytes for _, load in self._up(checkpoint)), default=None)

    def replicas(self, checkpoint: str) -> int:
        """The number of replicas that are up and not draining."""
        return len(self._up_now.get(checkpoint, _NOBODY))

    def _up(self, checkpoint: str) -> list[tuple[str, ReplicaLoad]]:
        return self._up_now.get(checkpoint, _NOBODY)

    def _count(self, checkpoint: str) -> None:
        """Lists the replicas that are up anew; the list is read many times for every report."""
        up = [(name, load) for name, load in self._replicas.get(checkpoint, {}).items() if not load.draining]
        self._up_now[checkpoint] = up
        if any(load.callers > 1 for _, load in up):
            self._shared.add(checkpoint)
        else:
            self._shared.discard(checkpoint)

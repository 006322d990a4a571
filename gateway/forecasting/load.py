"""How busy each replica is, as this ingress knows it: reports that came with answers, aged, plus what it sent since.

It learns from the transport (`reported`, `left`, `dispatched`) and answers the forecast (`backlog_s`) and the
choice of replica (`least_loaded`). It does no I/O.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msgspec import Struct

from gateway.model.messages import LoadReport


class QueueAhead(Struct, frozen=True):
    """What a request would find at a replica: seconds of work, and how many texts take turns, None if none do.

    `companions` is how many inputs of others, as long as the request's, are expected in the same run of the engine.
    """

    backlog_s: float
    sharing: int | None = None
    companions: int = 0

    def delay_s(self, service_time_s: float) -> float:
        """How long others hold up a request of so much service time.

        Where work is interleaved, each of the others takes no more than as much again.
        """
        if self.sharing is None:
            return self.backlog_s
        return min(self.backlog_s, self.sharing * service_time_s)


IDLE = QueueAhead(0.0)


@dataclass(slots=True)
class ReplicaLoad:
    """The last known backlog of one replica in seconds of service time, as of `as_of_s` on this process's clock.

    `share` are the cores of its node that fall to this gateway process, which divides them with others.
    """

    backlog_s: float
    as_of_s: float
    draining: bool = False
    sharing: int | None = None
    memory_bytes: int = 0
    node: str = ""
    share: float = 1.0
    callers: int = 1

    def backlog_at(self, now_s: float) -> float:
        """The backlog now: a replica works one second off in one second."""
        return max(0.0, self.backlog_s - (now_s - self.as_of_s))


_NONE: Mapping[str, ReplicaLoad] = {}


class LoadTracker:
    """The load of every replica of every checkpoint. One writer, the event loop; so it takes no lock."""

    def __init__(self) -> None:
        self._replicas: dict[str, dict[str, ReplicaLoad]] = {}
        self._cores: dict[tuple[str, ...], float] = {}

    def left(self, checkpoint: str, replica: str) -> None:
        """The connection is gone: the replica is no candidate until it reports again."""
        self._replicas.get(checkpoint, {}).pop(replica, None)
        self._cores.clear()

    def reported(self, checkpoint: str, replica: str, report: LoadReport, now_s: float, node: str = "") -> None:
        """Takes a replica's own report, which replaces what was reckoned here. Its first makes it a candidate."""
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
        )
        known = self._replicas.setdefault(checkpoint, {})
        before = known.get(replica)
        if before is None or before.share != share or before.draining != report.draining:
            self._cores.clear()
        known[replica] = load

    def cores(self, checkpoints: tuple[str, ...]) -> float:
        """The cores that fall to this gateway process on the nodes of these checkpoints' replicas; 1 at the least."""
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
        """The replica with the least backlog, by name where equal; None when none is up."""
        up = [(load.backlog_at(now_s), name) for name, load in self._up(checkpoint)]
        return min(up)[1] if up else None

    def backlog_s(self, checkpoint: str, now_s: float) -> float | None:
        """The queueing delay to expect at the least loaded replica, in seconds; None when none is up."""
        return min((load.backlog_at(now_s) for _, load in self._up(checkpoint)), default=None)

    def ahead(self, checkpoint: str, now_s: float) -> QueueAhead | None:
        """What a request would find at the least loaded replica; None when none is up."""
        least_s, sharing = math.inf, None
        for load in self._replicas.get(checkpoint, _NONE).values():  # asked for every candidate, so it makes no calls
            backlog_s = load.backlog_s - (now_s - load.as_of_s)
            if backlog_s < least_s and not load.draining:
                least_s, sharing = backlog_s, load.sharing
        return None if least_s == math.inf else QueueAhead(least_s if least_s > 0.0 else 0.0, sharing)

    def others_s(self, checkpoint: str, now_s: float) -> float:
        """The queueing delay at the least loaded replica that other gateways have a part in; 0 where there are none.

        What this one sends waits before it is sent; so what waits at a replica that it alone sends to is its own.
        """
        least_s, callers = math.inf, 1
        for _, load in self._up(checkpoint):
            if (backlog_s := load.backlog_at(now_s)) < least_s:
                least_s, callers = backlog_s, load.callers
        return least_s if callers > 1 else 0.0

    def memory_bytes(self, checkpoint: str) -> int | None:
        """The resident memory of the largest replica, as last reported; None when none is up."""
        return max((load.memory_bytes for _, load in self._up(checkpoint)), default=None)

    def replicas(self, checkpoint: str) -> int:
        """How many replicas are up and not draining."""
        return len(self._up(checkpoint))

    def _up(self, checkpoint: str) -> list[tuple[str, ReplicaLoad]]:
        return [(name, load) for name, load in self._replicas.get(checkpoint, {}).items() if not load.draining]

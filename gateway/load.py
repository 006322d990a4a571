"""How busy each replica is, as this ingress knows it: reports that came with answers, aged, plus what it sent since.

It learns from the link (`reported`, `left`, `dispatched`) and answers the forecast (`backlog_s`) and the
choice of replica (`least_loaded`). It does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from gateway.work import LoadReport


class Ahead(Struct, frozen=True):
    """What a request would find at a replica: seconds of work, and how many texts take turns, None if none do."""

    backlog_s: float
    sharing: int | None = None

    def delay_s(self, service_time_s: float) -> float:
        """How long others hold up a request of so much service time.

        Where work is interleaved, each of the others takes no more than as much again.
        """
        if self.sharing is None:
            return self.backlog_s
        return min(self.backlog_s, self.sharing * service_time_s)


IDLE = Ahead(0.0)


@dataclass(slots=True)
class ReplicaLoad:
    """The last known backlog of one replica in seconds of service time, as of `as_of_s` on this process's clock."""

    backlog_s: float
    as_of_s: float
    draining: bool = False
    sharing: int | None = None
    memory_bytes: int = 0

    def backlog_at(self, now_s: float) -> float:
        """The backlog now: a replica works one second off in one second."""
        return max(0.0, self.backlog_s - (now_s - self.as_of_s))


class LoadBook:
    """The load of every replica of every checkpoint. One writer, the event loop; so it takes no lock."""

    def __init__(self) -> None:
        self._replicas: dict[str, dict[str, ReplicaLoad]] = {}

    def left(self, checkpoint: str, replica: str) -> None:
        """The link is gone: the replica is no candidate until it reports again."""
        self._replicas.get(checkpoint, {}).pop(replica, None)

    def reported(self, checkpoint: str, replica: str, report: LoadReport, now_s: float) -> None:
        """Takes a replica's own report, which replaces what was reckoned here. Its first makes it a candidate."""
        load = ReplicaLoad(report.backlog_s, now_s, report.draining, report.sharing, report.memory_bytes)
        self._replicas.setdefault(checkpoint, {})[replica] = load

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

    def ahead(self, checkpoint: str, now_s: float) -> Ahead | None:
        """What a request would find at the least loaded replica; None when none is up."""
        up = [(load.backlog_at(now_s), name, load.sharing) for name, load in self._up(checkpoint)]
        if not up:
            return None
        backlog_s, _, sharing = min(up)  # no two have one name, so `sharing` is never compared
        return Ahead(backlog_s, sharing)

    def memory_bytes(self, checkpoint: str) -> int | None:
        """The resident memory of the largest replica, as last reported; None when none is up."""
        return max((load.memory_bytes for _, load in self._up(checkpoint)), default=None)

    def replicas(self, checkpoint: str) -> int:
        """How many replicas are up and not draining."""
        return len(self._up(checkpoint))

    def _up(self, checkpoint: str) -> list[tuple[str, ReplicaLoad]]:
        return [(name, load) for name, load in self._replicas.get(checkpoint, {}).items() if not load.draining]

"""The budget of memory for the keys and values of texts under way: a text that does not fit waits, or is refused.

It knows sizes alone, and which engine tells them. Who waits, and for how long, is the time slicer's.
"""

from __future__ import annotations

import logging

import psutil

from deployments.engines.base import CausalEngine, Seq2SeqEngine
from deployments.engines.host import usable_memory_bytes
from deployments.engines.past_memory import CountsPasts, PastNeed
from deployments.engines.prefixes import KeepsPrefixes, Prefixes
from gateway.catalogs.catalog import CatalogEntry
from gateway.model.messages import Failure, FailureKind

SHARE_OF_MEMORY = 8
"""A replica without `past_mb` may use the memory of its host divided by this. Set by hand."""

MEGABYTE = 1_000_000

log = logging.getLogger("punctual.replica")


class PastBudget:
    """Reserves memory for the texts under way, so that their keys and values never take more than the limit.

    What they leave of it is for prompts that were read, if the engine keeps such.
    """

    def __init__(self, limit_bytes: int, engine: CountsPasts, *, keeps_prefixes: bool = True) -> None:
        """Takes the limit, and the engine that says what texts take."""
        self.limit_bytes = limit_bytes
        self._engine = engine
        self._reserved: list[PastNeed] = []
        self._prefixes = engine.prefixes if isinstance(engine, KeepsPrefixes) else Prefixes()
        self._keeps_prefixes = keeps_prefixes
        self._leave_the_rest()

    def refusal(self, need: PastNeed) -> Failure | None:
        """The failure of a text that could not begin even alone; None for one that could."""
        needed = self._engine.most_bytes([need])
        if needed <= self.limit_bytes:
            return None
        detail = (
            f"keys and values of {need.rows} x {need.positions} tokens may take {needed} bytes, over the limit of "
            f"{self.limit_bytes} that past_mb sets; fewer beams or new tokens take less"
        )
        return Failure(FailureKind.TOO_LONG, detail, needed, self.limit_bytes, unit="bytes")

    def fits(self, need: PastNeed) -> bool:
        """True if a text of this need may begin beside those under way."""
        return self._engine.most_bytes([*self._reserved, need]) <= self.limit_bytes

    def reserve(self, need: PastNeed) -> None:
        """Notes that a text has begun."""
        self._reserved.append(need)
        self._leave_the_rest()

    def release(self, need: PastNeed) -> None:
        """Notes that a text has ended."""
        self._reserved.remove(need)
        self._leave_the_rest()

    def _leave_the_rest(self) -> None:
        left = self.limit_bytes - self._engine.most_bytes(self._reserved) if self._keeps_prefixes else 0
        self._prefixes.resize(left)

    def figures(self) -> dict[str, float]:
        """The bytes that are held now, those that may be held by the texts under way, and the limit, by name."""
        return {
            "past_bytes": self._engine.held_bytes,
            "past_reserved_bytes": self._engine.most_bytes(self._reserved),
            "past_limit_bytes": self.limit_bytes,
            "past_prefix_bytes": self._prefixes.held_bytes,
            "restored_prompts": self._prefixes.restored_prompts,
            "restored_tokens": self._prefixes.restored_tokens,
        }


def past_budget(
    entry: CatalogEntry, engine: Seq2SeqEngine | CausalEngine, largest: PastNeed, *, exact: bool = True
) -> PastBudget | None:
    """The budget of a replica: what its entry says, else a share of the memory that the process may use.

    That share is enough for the largest text of the checkpoint in any case. If what the entry says is not, the log
    tells. None for an engine that does not count. Only an `exact` engine keeps prompts: of others the numbers of a
    prompt's beginning depend on what followed it. Whole sources, which are always read alone, are exact in any engine.
    """
    if not isinstance(engine, CountsPasts):
        return None
    needed, keeps_prefixes = engine.most_bytes([largest]), entry.prefixes and exact
    if entry.past_mb is None:
        share = usable_memory_bytes(float(psutil.virtual_memory().total)) / SHARE_OF_MEMORY
        return PastBudget(max(int(share), needed), engine, keeps_prefixes=keeps_prefixes)
    limit = entry.past_mb * MEGABYTE
    if limit < needed:
        said = "%s: past_mb is %d, and its largest text may take %.1f: such texts are refused"
        log.warning(said, entry.name, entry.past_mb, needed / MEGABYTE)
    return PastBudget(limit, engine, keeps_prefixes=keeps_prefixes)

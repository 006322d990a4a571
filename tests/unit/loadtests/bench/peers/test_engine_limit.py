"""The bare engine: callers in processes of their own, warmed up, started at once, and pooled."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_variants import write_variant

from loadtests.bench.peers.engine import BareEngine, pooled
from loadtests.errors import EngineFailed


def test_two_callers_answer_at_once(tmp_path: Path) -> None:
    """Two callers on a small variant give a sample with answers and without errors."""
    write_variant(tmp_path / "variant")
    sample = BareEngine(tmp_path / "variant", ["good film", "bad film"], processes=2).run(16, 0.2)
    assert sample.requests > 0 and sample.errors == 0 and not sample.invalid and sample.duration_s == 0.2


def test_a_caller_that_cannot_load_its_variant_is_a_failure(tmp_path: Path) -> None:
    """A caller that cannot load its variant fails the measurement at once."""
    with pytest.raises(EngineFailed, match="without its latencies"):
        BareEngine(tmp_path / "nowhere", ["good film"], processes=2).run(16, 0.2)


def test_callers_are_pooled() -> None:
    """The throughput of several callers is their sum, and quantiles are taken over all their answers."""
    both = pooled([[0.001] * 30, [0.003] * 10], seconds=2)
    assert (both.requests, both.throughput, both.p50_s) == (40, 20.0, 0.001)
    assert both.p90_s == pytest.approx(0.003)

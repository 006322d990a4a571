"""How many processors may be used, and what is said where they are fewer than the host has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.engines.host import cores_said, usable_cores, usable_memory_bytes


@pytest.mark.parametrize(
    ("quotas", "usable"),
    [
        ({}, None),
        ({"": "max 100000"}, None),
        ({"": "50000 100000"}, 0.5),  # a container, which sees its own group as the root
        ({"a.slice/b.service": "25000 100000"}, 0.25),  # systemd's CPUQuota=25%
        ({"a.slice": "50000 100000", "a.slice/b.service": "max 100000"}, 0.5),
        ({"other.service": "10000 100000"}, None),
        ({"": "nonsense"}, None),
    ],
)
def test_the_least_quota_counts(quotas: dict[str, str], usable: float | None, tmp_path: Path) -> None:
    """A quota of the process's control group, or of one above it, limits the processors; another group's does not."""
    own = tmp_path / "own"
    own.write_text("0::/a.slice/b.service\n")
    for group, quota in quotas.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "cpu.max").write_text(f"{quota}\n")
    assert usable_cores(tmp_path, own) == (len(os.sched_getaffinity(0)) if usable is None else usable)


@pytest.mark.parametrize(
    ("limits", "usable"),
    [
        ({}, 8e9),
        ({"": "max"}, 8e9),
        ({"a.slice": "4000000000", "a.slice/b.service": "2000000000"}, 2e9),
        ({"a.slice": "16000000000"}, 8e9),
        ({"other.service": "1000"}, 8e9),
        ({"": "nonsense"}, 8e9),
    ],
)
def test_the_least_limit_of_memory_counts(limits: dict[str, str], usable: float, tmp_path: Path) -> None:
    """A limit of the process's control group, or of one above it, bounds its memory; another group's does not."""
    own = tmp_path / "own"
    own.write_text("0::/a.slice/b.service\n")
    for group, limit in limits.items():
        (tmp_path / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / group / "memory.max").write_text(f"{limit}\n")
    assert usable_memory_bytes(8e9, tmp_path, own) == usable


def test_a_bound_process_counts_its_own_processors(tmp_path: Path) -> None:
    """A process under `taskset` counts the processors that it is bound to."""
    one = min(os.sched_getaffinity(0))
    asked = f"import os; os.sched_setaffinity(0, [{one}]); from deployments.engines.host import usable_cores as u"
    counted = f"from pathlib import Path; print(u(Path({str(tmp_path)!r})))"
    answer = subprocess.check_output([sys.executable, "-c", f"{asked}; {counted}"], text=True)
    assert float(answer) == 1


@pytest.mark.parametrize(
    ("usable", "threads", "said"),
    [
        (4, 4, None),
        (2, 1, "2 of the host's 4 cores, and schedules for these"),
        (0.5, 1, "0.5 of the host's 4 cores, and schedules for these"),
        (1, 2, "a run of 2 threads was measured on all of them"),
    ],
)
def test_fewer_cores_are_said(usable: float, threads: int, said: str | None) -> None:
    """The start says how many cores may be used if they are fewer than the host's, and what of forecasts is off."""
    told = cores_said(usable, 4, threads)
    assert (
        told is None
        if said is None
        else told is not None and told.endswith((said, f"{said}, and its forecasts have to learn"))
    )

"""Who uses the processor: the watched processes, this one, and all others."""

from __future__ import annotations

import subprocess
import sys

import psutil
from waiting import wait_until

from loadtests.bench.measuring.machine import Watch, at_rest, cpu_seconds, not_quiet

SPIN = "import time\nprint('spinning', flush=True)\nwhile time.process_time() < 60: pass"


def test_what_a_watched_process_uses_is_its_share() -> None:
    """A busy watched process has a positive share of the cores; this process is not counted among the others."""
    child = subprocess.Popen([sys.executable, "-c", SPIN], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"spinning\n"
        spinning = psutil.Process(child.pid)
        before_s = cpu_seconds([spinning])
        watch = Watch({"spinner": [spinning], "nobody": []})
        assert sum(range(1_000_000)) > 0  # this process works, too
        wait_until(lambda: cpu_seconds([spinning]) >= before_s + 0.05)
        use = watch.use()
        assert use.shares["spinner"] > 0 and use.shares["nobody"] == 0.0
        assert 0.0 <= use.others <= 1.0
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()
    assert cpu_seconds([spinning]) == 0.0, "a process that is gone counts nothing"


def test_each_group_at_rest_has_its_share() -> None:
    """Each watched group at rest has its share by name, never a negative one."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        shares = at_rest({"waiting": [psutil.Process(child.pid)]}, 0.01).shares
        assert list(shares) == ["waiting"] and shares["waiting"] >= 0
    finally:
        child.communicate(b"\n")


def test_a_machine_that_is_busy_is_told() -> None:
    """A caution says so if other processes use more than a tenth of the machine."""
    assert not_quiet(0.1) == [] and "40%" in not_quiet(0.4)[0]

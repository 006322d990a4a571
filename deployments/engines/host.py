"""What this machine's processor is and can do: its model, its cores and its instruction-set flags.

A latency profile holds for one kind of host, and int8 arithmetic relies on instructions that not every host has; both
are judged by what stands here. Knows nothing of engines or variants.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
DOT_PRODUCT_FLAGS = ("avx512_vnni", "avx_vnni", "asimddp")


@dataclass(frozen=True)
class Host:
    """One machine's processor: model name, number of cores, flags as /proc/cpuinfo spells them."""

    model: str
    cores: int
    features: frozenset[str]

    @property
    def kind(self) -> str:
        """The name under which a latency profile is recorded: equal names, comparable times."""
        return f"{self.model}, {self.cores} core{'' if self.cores == 1 else 's'}"

    @property
    def dot_product(self) -> str | None:
        """The flag of the int8 dot-product instructions this host has, or None: then int8 is slow or wrong here."""
        return next((flag for flag in DOT_PRODUCT_FLAGS if flag in self.features), None)


def usable_cores(quota: Path = CPU_QUOTA) -> float:
    """The processors that this process may use: those it is bound to, or its container's share of them if less."""
    bound = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        allowed, period = quota.read_text().split()
        return bound if allowed == "max" else min(bound, int(allowed) / int(period))
    except (OSError, ValueError):
        return bound


def read_host(cpuinfo: Path = CPUINFO) -> Host:
    """This machine, by /proc/cpuinfo; where there is none (macOS), by what the platform says.

    The cores are the machine's, not the process's: a pod's share of them changes no single-thread time.
    """
    cores = os.cpu_count() or 1
    if not cpuinfo.exists():
        apple = platform.system() == "Darwin" and platform.machine() == "arm64"  # every Apple arm64 has dot products
        return Host(platform.processor() or platform.machine(), cores, frozenset({"asimddp"} if apple else ()))
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", ""))
    return Host(_model(fields), cores, frozenset(flags.split()))


def _model(fields: dict[str, str]) -> str:
    """The model name with the numbers that tell generations apart, which clouds hide behind one name."""
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields and "model" in fields:
        return f"{name} (family {fields['cpu family']} model {fields['model']})"
    if "CPU part" in fields:
        return f"{name} (part {fields['CPU part']})"
    return name

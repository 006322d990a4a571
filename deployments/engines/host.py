"""Describes this machine's processor: its model, its cores and its instruction-set flags.

A latency profile is valid for one kind of host, and int8 arithmetic needs instructions that not every host has. Knows
nothing of engines or variants.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
DOT_PRODUCT_FLAGS = ("avx512_vnni", "avx_vnni", "asimddp")
BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""On ARM OpenVINO computes in fp16 instead, which was not tried."""


@dataclass(frozen=True)
class Host:
    """One machine's processor: model name, number of cores, and flags in the spelling of /proc/cpuinfo."""

    model: str
    cores: int
    features: frozenset[str]

    @property
    def kind(self) -> str:
        """The name of this kind of host in latency profiles: times of equal names are comparable."""
        return f"{self.model}, {self.cores} core{'' if self.cores == 1 else 's'}"

    @property
    def dot_product(self) -> str | None:
        """The flag of this host's int8 dot-product instructions; None means that int8 is slow or wrong here."""
        return next((flag for flag in DOT_PRODUCT_FLAGS if flag in self.features), None)

    @property
    def bf16(self) -> str | None:
        """The flag of this host's fastest bf16 instructions; None means that bf16 is emulated here, or slower."""
        return next((flag for flag in BF16_FLAGS if flag in self.features), None)


def usable_cores(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> float:
    """The processors that this process may use: those it is bound to, or the least quota of its control groups."""
    bound = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return min([bound, *(_quota(cgroups / one) for one in _groups(own))])


def _quota(cgroup: Path) -> float:
    """The processors that a control group (version 2) may use; infinity without a limit."""
    try:
        allowed, period = (cgroup / "cpu.max").read_text().split()
        return math.inf if allowed == "max" else int(allowed) / int(period)
    except (OSError, ValueError):
        return math.inf


def usable_memory_bytes(present: float, cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> float:
    """The memory that this process may use, of the `present` bytes: the least limit of its control groups."""
    return min([present, *(_memory_limit(cgroups / one) for one in _groups(own))])


def _memory_limit(cgroup: Path) -> float:
    """The bytes that a control group (version 2) may use; infinity without a limit."""
    try:
        allowed = (cgroup / "memory.max").read_text().strip()
        return math.inf if allowed == "max" else float(allowed)
    except (OSError, ValueError):
        return math.inf


def _groups(own: Path) -> tuple[Path, ...]:
    """The control groups (version 2) of this process, from its own up, relative to their root."""
    try:
        path = Path(own.read_text().partition("0::/")[2].splitlines()[0])
    except (OSError, IndexError):
        path = Path()
    return (path, *path.parents)


def cores_said(usable: float, present: int, threads: int) -> str | None:
    """What an operator is told where a process may use fewer cores than the host has; None where it may use all.

    `threads` is the most that one engine run takes. Forecasts follow the usable cores by themselves, except for the
    time of a run of more threads than there are cores: that was measured on all.
    """
    if usable >= present:
        return None
    said = f"this process may use {usable:g} of the host's {present} cores, and schedules for these"
    if threads <= max(usable, 1):
        return said
    return f"{said}; a run of {threads} threads was measured on all of them, and its forecasts have to learn"


def read_host(cpuinfo: Path = CPUINFO) -> Host:
    """Describes this machine by /proc/cpuinfo, or by Python's `platform` where that is missing (macOS).

    The cores are the machine's, not the process's, since a pod's share does not change the time of one thread.
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
    """The model name with the numbers of its generation, since clouds give one name to several generations."""
    name = fields.get("model name", platform.machine())
    if "cpu family" in fields and "model" in fields:
        return f"{name} (family {fields['cpu family']} model {fields['model']})"
    if "CPU part" in fields:
        return f"{name} (part {fields['CPU part']})"
    return name

"""A made-up gateway under a real keeper, which does what its argument says.

    python kept.py waits|fails|interrupted

It starts a process in a group of its own, as Ray does, prints both numbers and its run folder, and goes on.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from deployments.serve.keeping import keep, ready, stops


def gateway(folder: Path) -> int:
    """Start a process, say so, and do what the argument says."""
    other = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], process_group=0)
    told = stops(signal.SIGINT) if sys.argv[1] == "waits" else None
    if told:
        ready(folder)
    print(folder, other.pid, flush=True)
    if sys.argv[1] == "fails":
        return 7
    if told:
        told.get()
        return 0
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(keep(gateway, lambda what: print(what, flush=True)))

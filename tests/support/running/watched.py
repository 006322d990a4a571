"""A gateway in a network of its own that leads nowhere, and every packet that would have left: prints them as JSON.

`unshare --net python watched.py CATALOG CACHE LOG` starts `punctual serve`, asks it once and stops it. A packet of its
own before that shows that the watch sees.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

from live import await_ready, free_port, start, stop

SHOWN = "192.0.2.1"
"""An address for documentation (RFC 5737), to which the watch itself sends."""

NETWORK = (
    "link set lo up",
    "link add out type veth peer name far",
    "address add 198.51.100.1/24 dev out",
    "link set out arp off up",
    "link set far up",
    "route add default dev out",
)
"""What `ip` is told: loopback, and a way out to which everything else goes."""

EVERY, IPV4, DNS = 0x0003, 0x0800, 53
"""Protocols of Ethernet, of which only `EVERY` shows what goes out; the port of questions of a name."""


def watch(seen: list[str]) -> None:
    """Note the destination of each packet that goes out, and of each question of a name on loopback; begins at once."""
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(EVERY))

    def note() -> None:
        while True:
            packet, (interface, protocol, *_) = tap.recvfrom(65_536)
            if protocol != IPV4:
                continue
            header = 4 * (packet[0] & 15)
            to, port = socket.inet_ntoa(packet[16:20]), int.from_bytes(packet[header + 2 : header + 4], "big")
            if interface == "out" or (interface == "lo" and port == DNS):
                seen.append(f"{to}:{port}")

    threading.Thread(target=note, daemon=True).start()


def main() -> None:
    """Watch a gateway from its start to its stop."""
    for words in NETWORK:
        subprocess.run(["/usr/bin/env", "ip", *words.split()], check=True)
    seen: list[str] = []
    watch(seen)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"seen?", (SHOWN, DNS))
    catalog, cache, log = map(Path, sys.argv[1:])
    running = start(catalog, cache, free_port(), log)
    try:
        await_ready(running)
        asked = urllib.request.Request(f"{running.url}/classify", b'{"inputs": "a good film"}')
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 200
    finally:
        status = stop(running)
    print(json.dumps({"status": status, "seen": seen}))


if __name__ == "__main__":
    main()

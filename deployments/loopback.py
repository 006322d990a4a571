"""Keeps a replica's own servers on loopback where the gateway runs on one node.

Ray Serve 2.60 starts, in every replica, a gRPC server for calls between deployments, on every interface and without
a setting for it (`_on_initialized` in `ray/serve/_private/replica.py`); it unpickles what it is sent. The gateway's
requests do not use it, its broadcasts reach it by the node's address, which is then loopback.
"""

from __future__ import annotations

from typing import Any

from ray.serve._private import replica

_REPLICA: Any = replica  # a private module: its names are not part of what it exports
_EVERYWHERE = "[::]:0"


def stay_on_loopback() -> None:
    """Call it in a deployment's constructor, which runs before that server starts. Raises where Ray has changed."""
    original = _REPLICA.add_port_to_grpc_server

    def bound(server: Any, address: str) -> int:
        if address != _EVERYWHERE:
            raise RuntimeError(f"Ray Serve binds {address}, not {_EVERYWHERE}: look at deployments/loopback.py again")
        port: int = original(server, "127.0.0.1:0")
        return port

    _REPLICA.add_port_to_grpc_server = bound

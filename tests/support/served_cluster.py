"""A cluster of two nodes on this host, to which the application is deployed as KubeRay does it: by Serve configs.

    python served_cluster.py

Reads from its standard input, a line each: the arguments of `deployments.serve.kubernetes:build` as JSON, which it
deploys, or an empty line, upon which it prints how many replicas of each deployment run, and how many come or go. It
ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from deployments.serve import environment, serving
from gateway.model.tier import Tier

PROCESSORS = 32
"""CPUs to reserve on each node, not to use: old and new replicas stand side by side."""

TIERS = ("realtime", "quality")
"""Each node is for the replicas of one tier. Ingresses on both share a port."""


def start_nodes(folder: Path) -> None:
    """Start Ray's two nodes and Serve."""
    os.environ["RAY_TMPDIR"] = str(folder)  # where the second node looks for the first
    (folder / "ray").mkdir()
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster
    from ray.serve.config import ProxyLocation

    from deployments.serve.graph import tier_resource

    nodes: list[dict[str, Any]] = [
        {"num_cpus": PROCESSORS, "node_ip_address": "127.0.0.1", "resources": {tier_resource(Tier(tier)): 1}}
        for tier in TIERS
    ]
    head = {**nodes[0], "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**nodes[1])
    ray.init(address=cluster.address, log_to_driver=False)
    serve.start(proxy_location=ProxyLocation.Disabled)


def deploy(arguments: dict[str, object]) -> None:
    """Give Serve's controller the config that a RayService would."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    one = {
        "name": "punctual",
        "route_prefix": None,
        "import_path": "deployments.serve.kubernetes:build",
        "args": arguments,
    }
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate({"proxy_location": "Disabled", "applications": [one]}))


def said() -> dict[str, object]:
    """Return the state of the application, by Serve's own account."""
    from ray import serve
    from ray.serve._private.common import ReplicaState

    standing = serve.status().applications.get("punctual")
    if standing is None:
        return {"status": "ABSENT"}
    running = {name: one.replica_states.get(ReplicaState.RUNNING, 0) for name, one in standing.deployments.items()}
    moving = sum(sum(one.replica_states.values()) for one in standing.deployments.values()) - sum(running.values())
    said = [standing.message, *(one.message for one in standing.deployments.values())]
    return {
        "status": str(standing.status.value),
        "said": [one for one in said if one],
        "running": running,
        "moving": moving,
    }


def stop() -> None:
    """Drain the gateway, and end Ray."""
    import ray

    if ray.is_initialized():
        serving.stop_serving()
        ray.shutdown()


def main() -> None:
    """Serve until the standard input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Ray prints would stand within a line of ours
    with environment.run_folder() as folder:
        environment.configure(folder)
        start_nodes(folder)
        print(json.dumps({"folder": str(folder)}), file=answers)
        try:
            for line in sys.stdin:
                if line.strip():
                    deploy(json.loads(line))
                print(json.dumps(said()), file=answers)
        finally:
            stop()


if __name__ == "__main__":
    main()

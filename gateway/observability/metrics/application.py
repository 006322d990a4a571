"""Metrics of the application as a whole: the state of its deployments, added once by the ingress that answers a scrape.

It knows the cluster's states as a closed list, and no cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import Metric

from gateway.observability.metrics.exposition import Reading, gauge, text_of

DEPLOYMENT_STATES = ("healthy", "updating", "upscaling", "downscaling", "unhealthy", "deploy_failed")
REPLICA_STATES = ("starting", "updating", "recovering", "running", "stopping", "stopped", "pending_migration")


@dataclass(frozen=True, slots=True)
class SeenDeployment:
    """One deployment now: its state, the number of its replicas in each state, and its self-test.

    `self_test_failed` is True if a replica was rejected by its checks since the deployment was last healthy; it is None
    for a deployment that has no self-test.
    """

    name: str
    state: str
    replicas: Mapping[str, int]
    self_test_failed: bool | None = None


def application_text(seen: Sequence[SeenDeployment]) -> str:
    """Writes the deployments in the text format."""
    return text_of(_families(seen))


def _families(seen: Sequence[SeenDeployment]) -> Iterator[Metric]:
    states = [Reading((one.name, state), one.state == state) for one in seen for state in DEPLOYMENT_STATES]
    yield gauge("deployment_state", "The state a deployment is in.", ("deployment", "state"), states)
    replicas = [Reading((one.name, state), one.replicas.get(state, 0)) for one in seen for state in REPLICA_STATES]
    yield gauge("deployment_replicas", "Replicas of a deployment by their state.", ("deployment", "state"), replicas)
    failed = [Reading((one.name,), one.self_test_failed) for one in seen]
    about = "Whether a replica was rejected by its checks since the checkpoint was last healthy."
    yield gauge("checkpoint_self_test_failed", about, ("checkpoint",), failed)

"""The deployment graph: an ingress over one deployment for each checkpoint, the same on one host and on many nodes.

Knows what Ray Serve is told of each deployment; where it runs and on what, `Terrain` says. Imports Ray, so it is
imported only once the switches of `environment` are set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from deployments.replica.replica import ReplicaSettings
from deployments.replica.variant import checked_manifest
from deployments.serve.applications import INGRESS, CheckpointDeployment, IngressDeployment, TransportSettings
from deployments.serve.autoscaling import autoscaling_config
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.tier import Tier

TIER_SHARE = 0.001
"""What a replica takes of its tier's resource: nodes that offer 1 of it have room for as many as their processors."""

_QUIET = LoggingConfig(enable_access_log=False)


@dataclass(frozen=True)
class Terrain:
    """Where the graph is to stand: its transport, and whether nodes offer a resource for each tier (`tier_resource`).

    An ingress has the variables of `ingress_environment` beside those of its node.
    """

    transport: TransportSettings
    tier_resources: bool = False
    ingress_environment: Mapping[str, str] = field(default_factory=dict)


def tier_resource(tier: Tier) -> str:
    """The name of the resource that nodes for a tier's replicas offer."""
    return f"tier-{tier}"


def application(catalog: Catalog, variants: Mapping[str, Path], terrain: Terrain) -> Application:
    """The graph of a catalog whose variants lie in these folders. Raises VariantRejected for one without a manifest.

    Where the application runs already, replicas of the new graph are started before those of the old are retired.
    """
    limits = catalog.limits
    replicas = {}
    for entry in catalog.checkpoints:
        settings = ReplicaSettings(entry, variants[entry.name], limits.max_queued_inputs)
        deployment = serve.deployment(
            name=entry.name,
            ray_actor_options=_reserved(entry, terrain),
            max_ongoing_requests=100,
            max_constructor_retry_count=2,
            health_check_timeout_s=10,
            **_number(entry, catalog.budget_s(entry.task)),
            **_shared(terrain),
        )(CheckpointDeployment)
        replicas[entry.name] = deployment.bind(settings, terrain.transport)
    actor: dict[str, Any] = {"num_cpus": catalog.ingress.cpus}
    if terrain.ingress_environment:
        actor["runtime_env"] = {"env_vars": dict(terrain.ingress_environment)}
    ingress = serve.deployment(
        name=INGRESS,
        num_replicas=catalog.ingress.replicas,
        ray_actor_options=actor,
        max_ongoing_requests=2 * limits.max_concurrent_requests,
        **_shared(terrain),
    )(IngressDeployment)
    manifests = {name: checked_manifest(variant) for name, variant in variants.items()}
    return ingress.bind(catalog, manifests, terrain.transport, replicas)


def _shared(terrain: Terrain) -> dict[str, Any]:
    return {
        "health_check_period_s": 1,
        "max_surge_percent": 100,  # the new are ready before the old go
        "graceful_shutdown_timeout_s": terrain.transport.retiring_s,
        "graceful_shutdown_wait_loop_s": 0.2,
        "logging_config": _QUIET,
    }


def _number(entry: CatalogEntry, budget_s: float) -> dict[str, Any]:
    scaling = autoscaling_config(entry, budget_s)
    return {"num_replicas": entry.replicas} if scaling is None else {"autoscaling_config": scaling}


def _reserved(entry: CatalogEntry, terrain: Terrain) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": entry.cpus}
    return {**options, "resources": {tier_resource(entry.tier): TIER_SHARE}} if terrain.tier_resources else options

"""The deployment graph: an ingress over one deployment for each checkpoint, equal on one host and on many nodes.

Describes each deployment to Ray Serve; `Placement` says where it runs. Imports Ray, so import it only after the
switches of `environment` are set.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from deployments.replica.replica import ReplicaSettings
from deployments.replica.variant import checked_manifest
from deployments.serve.autoscaling import autoscaling_config
from deployments.serve.checkpoint import CheckpointDeployment, TransportSettings
from deployments.serve.discovery import INGRESS
from deployments.serve.ingress import IngressDeployment, Listening
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.tier import Tier
from gateway.router import MakeScheduler
from gateway.scheduling.scheduler import Scheduler

TIER_SHARE = 0.001
"""The part of its tier's resource that a replica takes: so small that a node's processors are always the limit."""

_QUIET = LoggingConfig(enable_access_log=False)


@dataclass(frozen=True)
class Placement:
    """Where the graph runs: its transport, where ingresses listen, and whether nodes offer a resource for each tier.

    The resource is `tier_resource`. An ingress gets the variables of `ingress_environment` beside those of its node.
    `notes` is the file with the notes on checkpoints that are still to come, if any are. `scheduler` makes the
    scheduler of each ingress.
    """

    transport: TransportSettings
    listening: Listening
    tier_resources: bool = False
    ingress_environment: Mapping[str, str] = field(default_factory=dict)
    notes: Path | None = None
    scheduler: MakeScheduler = Scheduler


def tier_resource(tier: Tier) -> str:
    """Names the resource of nodes that are meant for a tier's replicas."""
    return f"tier-{tier}"


def application(catalog: Catalog, variants: Mapping[str, Path], placement: Placement) -> Application:
    """Makes the graph of a catalog with its variants' folders. Raises VariantRejected for one without a manifest.

    A checkpoint without a folder is still to come: the ingresses take it in once it has an application of its own.
    If the application already runs, the new graph's replicas start before the old ones are retired.
    """
    replicas = {
        entry.name: checkpoint_application(catalog, entry, variants[entry.name], placement)
        for entry in catalog.checkpoints
        if entry.name in variants
    }
    actor: dict[str, Any] = {"num_cpus": catalog.ingress.cpus}
    if placement.ingress_environment:
        actor["runtime_env"] = {"env_vars": dict(placement.ingress_environment)}
    ingress = serve.deployment(
        name=INGRESS,
        num_replicas=catalog.ingress.replicas,
        ray_actor_options=actor,
        **_shared(placement.listening.retiring_s),
    )(IngressDeployment)
    manifests = {name: checked_manifest(variant) for name, variant in variants.items()}
    return ingress.bind(
        catalog,
        manifests,
        dict(variants),
        placement.transport,
        placement.listening,
        replicas,
        placement.notes,
        placement.scheduler,
    )


def checkpoint_application(catalog: Catalog, entry: CatalogEntry, variant: Path, placement: Placement) -> Application:
    """Makes the graph of one checkpoint: a part of that of its catalog, or alone for one that comes later."""
    settings = ReplicaSettings(entry, variant, catalog.limits.max_queued_inputs)
    deployment = serve.deployment(
        name=entry.name,
        ray_actor_options=_reserved(entry, placement),
        max_ongoing_requests=100,
        **_number(entry, catalog.budget_s(entry.task), uuid.uuid4().hex),
        **_shared(placement.transport.retiring_s),
    )(CheckpointDeployment)
    return deployment.bind(settings, placement.transport)


def _shared(retiring_s: float) -> dict[str, Any]:
    return {
        "max_constructor_retry_count": 2,
        "health_check_timeout_s": 10,
        "health_check_period_s": 1,
        "max_surge_percent": 100,  # new replicas are ready before old ones are retired
        "graceful_shutdown_timeout_s": retiring_s,
        "graceful_shutdown_wait_loop_s": 0.2,
        "logging_config": _QUIET,
    }


def _number(entry: CatalogEntry, budget_s: float, build: str) -> dict[str, Any]:
    scaling = autoscaling_config(entry, budget_s, build)
    return {"num_replicas": entry.replicas} if scaling is None else {"autoscaling_config": scaling}


def _reserved(entry: CatalogEntry, placement: Placement) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": entry.cpus}
    return {**options, "resources": {tier_resource(entry.tier): TIER_SHARE}} if placement.tier_resources else options

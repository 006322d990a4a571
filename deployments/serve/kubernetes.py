"""Builds the application for KubeRay's RayService: takes the chart's arguments, gives Ray Serve's graph.

`deployments.serve.kubernetes:build` is the import path in the chart's Serve config. It runs in a task of the cluster,
at each change of that config. It prepares no variants: they must be in the cache, at one path on every node.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.replica.prepared import prepared_variants
from deployments.serve.observing import ACCESS_LOG
from deployments.transport import Certificates, CertificatesError
from gateway.catalogs.catalog import load_catalog

if TYPE_CHECKING:
    from ray.serve import Application

LINGER_S = 6.0
"""Seconds that a retired replica works on: longer than the time between an ingress's looks for new ones (`SETTLED_S`
of the transport's client)."""

DRAIN_S = 60.0
"""Seconds that a retired replica or ingress may take for its requests. The pod's grace period must be longer."""

LEAVE_S = 20.0
"""Seconds that a retired ingress serves on: longer than its pod's readiness probe takes to fail, and the Service to
leave out the pod. A pod that is itself to go is left out at once."""


class BuildError(Exception):
    """The application cannot be built. The message has one line for each fault, with its argument."""


class Arguments(BaseModel):
    """The chart's arguments. Paths must be valid in every pod. Each ingress listens on `host` and `port` of its pod.

    `ingresses` is how many there are, in place of the catalog's number.

    `transport_certificates` is a folder with ca.crt, tls.crt and tls.key, for connections between nodes. `access_log`
    is a path, `-` for the ingress's own output, or `off`; by default, the pod's environment decides. `revision` is the
    digest of the catalog's content: a changed catalog changes the Serve config, and Ray Serve builds the application
    again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalog: str = Field(min_length=1)
    cache: Path
    transport_certificates: Path
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8000, ge=1, le=65535)
    ingresses: int | None = Field(default=None, ge=1)
    access_log: str | None = Field(default=None, min_length=1)
    tier_resources: bool = False
    revision: str = ""


def build(args: dict[str, Any]) -> Application:
    """Builds the application of a catalog whose variants are prepared.

    Raises BuildError, CatalogError or NotPrepared, whose messages say what to do.
    """
    given = arguments_of(args)
    catalog = load_catalog(given.catalog)
    if given.ingresses is not None:
        ingress = catalog.ingress.model_copy(update={"replicas": given.ingresses})
        catalog = catalog.model_copy(update={"ingress": ingress})
    variants = prepared_variants(catalog, given.catalog, given.cache)
    from deployments.serve.checkpoint import TransportSettings
    from deployments.serve.graph import Placement, application
    from deployments.serve.ingress import Listening

    sockets = Path(tempfile.gettempdir(), f"punctual-transport-{os.getuid()}")
    transport = TransportSettings(sockets, given.transport_certificates, linger_s=LINGER_S, drain_s=DRAIN_S)
    environment = {} if given.access_log is None else {ACCESS_LOG: given.access_log}
    listening = Listening(given.host, given.port, linger_s=LEAVE_S, drain_s=DRAIN_S)
    return application(catalog, variants, Placement(transport, listening, given.tier_resources, environment))


def arguments_of(args: dict[str, Any]) -> Arguments:
    """Checks the arguments and the certificates. Raises BuildError."""
    try:
        given = Arguments.model_validate(args)
    except ValidationError as error:
        faults = (f"args.{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise BuildError("\n".join(faults)) from None
    try:
        Certificates(given.transport_certificates).check()
    except CertificatesError as error:
        raise BuildError(f"args.transport_certificates: {error}") from None
    return given

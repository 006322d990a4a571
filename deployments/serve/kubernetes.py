"""The application as KubeRay's RayService starts it: its arguments in, Ray Serve's graph out.

`deployments.serve.kubernetes:build` is the import path in the chart's Serve config. It runs in a task of the cluster,
again at each change of that config, and prepares nothing: variants lie in the cache already, on every node by the same
path.
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
"""Longer than an ingress goes without looking for new replicas (`SETTLED_S` of the transport's backend)."""

DRAIN_S = 60.0
"""What a retired replica may take for what is under way: the pod's grace period must be longer."""


class BuildError(Exception):
    """The application cannot be built; one line for each fault, with the argument that it is about."""


class Arguments(BaseModel):
    """What the chart passes. A path must hold in every pod.

    `transport_certificates` is a folder with ca.crt, tls.crt and tls.key, for connections between nodes.
    `access_log` is a path, `-` for the ingress's own output, or `off`; without it, what the pod's environment says.
    `revision` is for what the other arguments do not show: the digest of the catalog's content, so that a change of it
    is a change of the Serve config, upon which Ray Serve builds the application anew.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    catalog: str = Field(min_length=1)
    cache: Path
    transport_certificates: Path
    access_log: str | None = Field(default=None, min_length=1)
    tier_resources: bool = False
    revision: str = ""


def build(args: dict[str, Any]) -> Application:
    """The application of a catalog whose variants are prepared.

    Raises BuildError, CatalogError or NotPrepared, each with what is to be done.
    """
    given = arguments_of(args)
    catalog = load_catalog(given.catalog)
    variants = prepared_variants(catalog, given.catalog, given.cache)
    from deployments.serve.applications import TransportSettings
    from deployments.serve.graph import Terrain, application

    sockets = Path(tempfile.gettempdir(), f"punctual-transport-{os.getuid()}")
    transport = TransportSettings(sockets, given.transport_certificates, linger_s=LINGER_S, drain_s=DRAIN_S)
    environment = {} if given.access_log is None else {ACCESS_LOG: given.access_log}
    return application(catalog, variants, Terrain(transport, given.tier_resources, environment))


def arguments_of(args: dict[str, Any]) -> Arguments:
    """The arguments, checked, the certificates among them. Raises BuildError."""
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

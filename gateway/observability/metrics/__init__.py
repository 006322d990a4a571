"""Prometheus metrics: what each process counts, and how the metrics of many processes become one scrape.

The only package that knows `prometheus_client`. Names follow the glossary. Every label has a closed list of values:
task, checkpoint, tier, outcome, reason, verdict, finish reason, code, part, deployment and its states, replica.

`requests` counts finished requests, `server` errors about what is none, `replicas` and `application` report a replica
and all deployments, and `exposition` writes the text format and merges it.
"""

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.observability.metrics.application import (
    DEPLOYMENT_STATES,
    REPLICA_STATES,
    SeenDeployment,
    application_text,
)
from gateway.observability.metrics.exposition import (
    CONTENT_TYPE,
    Process,
    Reading,
    counter,
    exposition,
    formatted,
    gauge,
    one_scrape,
    text_of,
    total,
)
from gateway.observability.metrics.replicas import BATCH_SIZES, ReplicaFacts, replica_text
from gateway.observability.metrics.requests import BUCKETS, RequestMetrics
from gateway.observability.metrics.server import ServerErrors

__all__ = [
    "BATCH_SIZES",
    "BUCKETS",
    "CONTENT_TYPE",
    "DEPLOYMENT_STATES",
    "REPLICA_STATES",
    "Collector",
    "Metric",
    "Process",
    "Reading",
    "ReplicaFacts",
    "RequestMetrics",
    "SeenDeployment",
    "ServerErrors",
    "application_text",
    "counter",
    "exposition",
    "formatted",
    "gauge",
    "one_scrape",
    "replica_text",
    "text_of",
    "total",
]

"""Prometheus metrics: what is counted in each process, and how many processes become one scrape.

The only package that knows `prometheus_client`. Names follow the glossary; every label is of a closed list: task,
checkpoint, tier, outcome, reason, verdict, finish reason, deployment and its states, replica.
"""

from gateway.metrics.application import DEPLOYMENT_STATES, REPLICA_STATES, SeenDeployment, application_text
from gateway.metrics.replicas import RUN_SIZES, ReplicaFacts, replica_text
from gateway.metrics.requests import BUCKETS, RequestMetrics
from gateway.metrics.scrape import CONTENT_TYPE, Process, one_scrape
from gateway.metrics.state import GatewayState

__all__ = [
    "BUCKETS",
    "CONTENT_TYPE",
    "DEPLOYMENT_STATES",
    "REPLICA_STATES",
    "RUN_SIZES",
    "GatewayState",
    "Process",
    "ReplicaFacts",
    "RequestMetrics",
    "SeenDeployment",
    "application_text",
    "one_scrape",
    "replica_text",
]

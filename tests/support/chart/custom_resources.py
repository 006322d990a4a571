"""The fields of custom resources that the chart may use, with their types: facts, each with its source.

`RAY_SERVICE` is from KubeRay v1.7.0, ray-operator/apis/ray/v1/{rayservice,raycluster}_types.go (group ray.io, version
v1). `SCRAPE_CONFIG` and `PROMETHEUS_RULE` are from Prometheus Operator, pkg/apis/monitoring/v1alpha1/ and v1/ (group
monitoring.coreos.com). Only what the chart uses is here; a field of the chart that is not here fails.

A path names a field below the document, `[]` the items of a list, `*` any key of a map. A type is one of `_CHECKS`, an
enumeration `a|b`, or the name of a type of Kubernetes, whose own schema checks it elsewhere: `walk` stops there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

RAY_SERVICE: Final[Mapping[str, str]] = {
    "spec.upgradeStrategy.type": "NewCluster|NewClusterWithIncrementalUpgrade|None",
    "spec.upgradeStrategy.clusterUpgradeOptions.gatewayClassName": "string",
    "spec.upgradeStrategy.clusterUpgradeOptions.stepSizePercent": "int32",
    "spec.upgradeStrategy.clusterUpgradeOptions.intervalSeconds": "int32",
    "spec.upgradeStrategy.clusterUpgradeOptions.maxSurgePercent": "int32",
    "spec.rayClusterDeletionDelaySeconds": "int32",
    "spec.excludeHeadPodFromServeSvc": "boolean",
    "spec.serveService": "Service",
    "spec.serveConfigV2": "string",
    "spec.rayClusterConfig.rayVersion": "string",
    "spec.rayClusterConfig.enableInTreeAutoscaling": "boolean",
    "spec.rayClusterConfig.autoscalerOptions.version": "v1|v2",
    "spec.rayClusterConfig.autoscalerOptions.upscalingMode": "Default|Aggressive|Conservative",
    "spec.rayClusterConfig.autoscalerOptions.idleTimeoutSeconds": "int32",
    "spec.rayClusterConfig.autoscalerOptions.imagePullPolicy": "Always|IfNotPresent|Never",
    "spec.rayClusterConfig.autoscalerOptions.resources": "ResourceRequirements",
    "spec.rayClusterConfig.autoscalerOptions.securityContext": "SecurityContext",
    "spec.rayClusterConfig.autoscalerOptions.volumeMounts[]": "VolumeMount",
    "spec.rayClusterConfig.authOptions.mode": "disabled|token",
    "spec.rayClusterConfig.authOptions.secretName": "string",
    "spec.rayClusterConfig.gcsFaultToleranceOptions.backend": "redis|rocksdb",
    "spec.rayClusterConfig.gcsFaultToleranceOptions.storage.claimName": "string",
    "spec.rayClusterConfig.gcsFaultToleranceOptions.storage.size": "string",
    "spec.rayClusterConfig.gcsFaultToleranceOptions.storage.storageClassName": "string",
    "spec.rayClusterConfig.gcsFaultToleranceOptions.redisAddress": "string",
    "spec.rayClusterConfig.gcsFaultToleranceOptions.redisPassword.valueFrom": "EnvVarSource",
    "spec.rayClusterConfig.headGroupSpec.rayStartParams.*": "string",
    "spec.rayClusterConfig.headGroupSpec.template": "PodTemplateSpec",
    "spec.rayClusterConfig.workerGroupSpecs[].groupName": "string",
    "spec.rayClusterConfig.workerGroupSpecs[].replicas": "int32",
    "spec.rayClusterConfig.workerGroupSpecs[].minReplicas": "int32",
    "spec.rayClusterConfig.workerGroupSpecs[].maxReplicas": "int32",
    "spec.rayClusterConfig.workerGroupSpecs[].rayStartParams.*": "string",
    "spec.rayClusterConfig.workerGroupSpecs[].template": "PodTemplateSpec",
}
RAY_SERVICE_REQUIRED: Final = (
    "spec.rayClusterConfig.headGroupSpec.rayStartParams.*",
    "spec.rayClusterConfig.headGroupSpec.template",
    "spec.rayClusterConfig.workerGroupSpecs[].groupName",
    "spec.rayClusterConfig.workerGroupSpecs[].minReplicas",
    "spec.rayClusterConfig.workerGroupSpecs[].maxReplicas",
    "spec.rayClusterConfig.workerGroupSpecs[].rayStartParams.*",
    "spec.rayClusterConfig.workerGroupSpecs[].template",
)
LONGEST_NAME: Final = 47
"""Of a RayService: MaxRayServiceNameLength of KubeRay v1.7.0, ray-operator/controllers/ray/utils/constant.go."""

SCRAPE_CONFIG: Final[Mapping[str, str]] = {
    "spec.staticConfigs[].targets[]": "string",
    "spec.staticConfigs[].labels.*": "string",
    "spec.metricsPath": "string",
    "spec.scrapeInterval": "duration",
    "spec.scrapeTimeout": "duration",
    "spec.convertClassicHistogramsToNHCB": "boolean",
    "spec.scrapeClassicHistograms": "boolean",
}
PROMETHEUS_RULE: Final[Mapping[str, str]] = {
    "spec.groups[].name": "string",
    "spec.groups[].interval": "duration",
    "spec.groups[].rules[].record": "string",
    "spec.groups[].rules[].alert": "string",
    "spec.groups[].rules[].expr": "string or number",
    "spec.groups[].rules[].for": "duration",
    "spec.groups[].rules[].keep_firing_for": "duration",
    "spec.groups[].rules[].labels.*": "string",
    "spec.groups[].rules[].annotations.*": "string",
}
FIELDS: Final = {"RayService": RAY_SERVICE, "ScrapeConfig": SCRAPE_CONFIG, "PrometheusRule": PROMETHEUS_RULE}

_CHECKS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "int32": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31,
    "boolean": lambda value: isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "string or number": lambda value: isinstance(value, str | int | float) and not isinstance(value, bool),
    "duration": lambda value: isinstance(value, str) and re.fullmatch(r"(\d+(ms|[smhdwy]))+", value) is not None,
}


def faults(document: Mapping[str, Any]) -> list[str]:
    """Return the fields below a custom resource's `spec` that its kind does not have, or has with another type."""
    fields = FIELDS[document["kind"]]
    found = []
    for path, value in walk(document["spec"], "spec", fields):
        known = fields.get(path)
        if known is None:
            found.append(f"{path}: not a field of {document['kind']}")
        elif not _fits(known, value):
            found.append(f"{path}: {value!r} is not {known}")
    return found


def walk(value: Any, path: str, fields: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    """Yield each leaf with its path; a value whose path is a known field counts as a leaf."""
    if path in fields:
        yield path, value
    elif isinstance(value, dict):
        any_key = f"{path}.*" in fields
        for key, below in value.items():
            yield from walk(below, f"{path}.*" if any_key else f"{path}.{key}", fields)
    elif isinstance(value, list):
        for below in value:
            yield from walk(below, f"{path}[]", fields)
    else:
        yield path, value


def _fits(known: str, value: Any) -> bool:
    if check := _CHECKS.get(known):
        return check(value)
    return value in known.split("|") if "|" in known else isinstance(value, dict)

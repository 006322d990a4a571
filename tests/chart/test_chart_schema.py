"""values.schema.json: a wrong value is refused before anything is installed, and the error names it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from helm_python import HelmError
from rendered_chart import Document, chart, production, render

WRONG: list[tuple[Document, str]] = [
    ({"replicas": 3}, "'replicas' not allowed"),
    ({"image": {"repository": ""}}, "/image/repository"),
    ({"image": {"tag": "no spaces"}}, "/image/tag"),
    ({"image": {"digest": "sha256:short"}}, "/image/digest"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
    ({"fullnameOverride": "Upper"}, "/fullnameOverride"),
    ({"catalog": {"checkpoints": []}}, "/catalog/checkpoints"),
    ({"catalog": {"checkpoints": [{"name": "Not A Slug"}]}}, "/catalog/checkpoints/0/name"),
    ({"catalog": {"limits": {"max_inputs": 0}}}, "/catalog/limits/max_inputs"),
    ({"catalog": {"defaults": {"budget_ms": {"classify": 0}}}}, "/catalog/defaults/budget_ms/classify"),
    ({"catalog": {"ingress": {"replicas": 17}}}, "/catalog/ingress/replicas"),
    ({"catalog": {"deafults": {}}}, "'deafults' not allowed"),
    ({"cache": {"kind": "hostPath"}}, "/cache/kind"),
    ({"cache": {"sizeLimit": "8 GB"}}, "/cache/sizeLimit"),
    ({"transport": {"validDays": 0}}, "/transport/validDays"),
    ({"linkSecret": {"key": ""}}, "/linkSecret/key"),
    ({"accessLog": "stdout"}, "/accessLog"),
    ({"http": {"port": 80}}, "/http/port"),
    ({"service": {"type": "External"}}, "/service/type"),
    ({"ingress": {"hosts": [{"host": "a.test"}]}}, "/ingress/hosts/0"),
    ({"tiers": {"realtime": {"pods": -1}}}, "/tiers/realtime/pods"),
    ({"tiers": {"quality": {"cpus": 1.5}}}, "/tiers/quality/cpus"),
    ({"tiers": {"economy": {}}}, "'economy' not allowed"),
    ({"workers": {"topologySpreadConstraints": [{"maxSkew": 1}]}}, "/workers/topologySpreadConstraints/0"),
    ({"autoscaler": {"enabled": "yes"}}, "/autoscaler/enabled"),
    ({"autoscaler": {"upscalingMode": "Eager"}}, "/autoscaler/upscalingMode"),
    ({"upgrade": {"strategy": "Rolling"}}, "/upgrade/strategy"),
    ({"upgrade": {"incremental": {"stepSizePercent": 0}}}, "/upgrade/incremental/stepSizePercent"),
    ({"auth": {"mode": "password"}}, "/auth/mode"),
    ({"head": {"faultTolerance": {"backend": "etcd"}}}, "/head/faultTolerance/backend"),
    ({"head": {"faultTolerance": {"storage": {"size": "1 GB"}}}}, "/head/faultTolerance/storage/size"),
    ({"drain": {"deadlineSeconds": 0}}, "/drain/deadlineSeconds"),
    ({"probes": {"readyPath": "readyz"}}, "/probes/readyPath"),
    ({"networkPolicy": {"operator": {"from": []}}}, "/networkPolicy/operator/from"),
    ({"scrapeConfig": {"interval": "often"}}, "/scrapeConfig/interval"),
    ({"prometheusRule": {"runbook": "docs/operating.md"}}, "/prometheusRule/runbook"),
    ({"dashboards": {"labels": {"grafana_dashboard": 1}}}, "/dashboards/labels/grafana_dashboard"),
    ({"tests": {"budgetMs": 700000}}, "/tests/budgetMs"),
]


@pytest.mark.parametrize(("values", "named"), WRONG, ids=[named for _, named in WRONG])
def test_a_wrong_value_is_named(values: Document, named: str) -> None:
    """A wrong value is refused, and the error has its path."""
    with pytest.raises(HelmError) as refused:
        render(values)
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("tier", "fast"), ("replicas", 65), ("precision", ["int4"]), ("cpus", 0), ("quality", {"metric": "accuracy"})],
)
def test_a_fault_of_a_checkpoint_is_named(field: str, value: object) -> None:
    """A faulty checkpoint is refused at once, as `punctual catalog check` would refuse it in the pod."""
    checkpoints = copy.deepcopy(production()["catalog"]["checkpoints"])
    checkpoints[1][field] = value
    with pytest.raises(HelmError, match=f"/catalog/checkpoints/1/{field}"):
        render({"catalog": {"checkpoints": checkpoints}})


def test_the_schema_is_closed_at_every_depth() -> None:
    """A misspelt value is an error at every depth; only maps with the operator's own keys are open."""
    schema = chart().schema
    assert schema is not None
    assert list(_open(schema, "", chart().values, schema["$defs"])) == []


def _open(schema: Document, path: str, value: Any, definitions: Document) -> Iterator[str]:
    """The paths of values that the schema does not know, and of objects that would accept unknown fields."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].removeprefix("#/$defs/")]
    if not isinstance(value, dict) or "properties" not in schema:
        return
    if schema.get("additionalProperties") is not False:
        yield path
    for name, below in value.items():
        yield from _open(schema["properties"][name], f"{path}/{name}", below, definitions)

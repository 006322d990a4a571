"""The chart's manifests: Helm lints and renders them, and they meet the schemas of what reads them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from custom_resources import FIELDS, LONGEST_NAME, RAY_SERVICE, RAY_SERVICE_REQUIRED, faults, walk
from helm_python import HelmError
from helm_python.chart import lint
from programs import program
from rendered_chart import CHART, FULLNAME, NAMESPACE, Document, chart, production, render

KUBERNETES = "1.33"
PLACEHOLDER = "https://punctual.example/docs/operating.md"
EVERYTHING: Document = {
    "ingress": {"enabled": True, "hosts": [{"host": "punctual.test", "paths": ["/"]}]},
    "autoscaler": {"enabled": True},
    "cache": {"kind": "persistentVolumeClaim"},
    "scrapeConfig": {"enabled": True},
    "prometheusRule": {"enabled": True},
    "dashboards": {"enabled": True},
    "imagePullSecrets": [{"name": "registry"}],
    "extraEnv": [{"name": "HF_HUB_OFFLINE", "value": "1"}],
    "extraVolumes": [{"name": "weights", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "weights", "mountPath": "/weights"}],
    "podAnnotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false"},
    "podLabels": {"team": "inference"},
    "priorityClassName": "serving",
    "tiers": {
        "quality": {
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "quality", "operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
        }
    },
}
VALUES: dict[str, Document] = {
    "default": {},
    "production": production(),
    "everything": EVERYTHING,
    "baked": {"cache": {"kind": "image"}},
}


@pytest.fixture(params=VALUES, scope="module")
def values(request: pytest.FixtureRequest) -> Document:
    """Each set of values in turn."""
    return VALUES[request.param]


def test_helm_finds_nothing_to_mend(values: Document) -> None:
    """A strict lint reports no error and no warning, apart from the missing icon."""
    report = lint(CHART, values, strict=True, namespace=NAMESPACE)
    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_every_manifest_meets_its_schema(values: Document) -> None:
    """Every manifest meets Kubernetes' schema without unknown fields; custom resources meet their authors' schema."""
    made = render(values)
    assert made.one("RayService")["apiVersion"] == "ray.io/v1"
    for document in made.documents:
        if document["kind"] in FIELDS:
            assert faults(document) == []
        else:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_what_is_inside_the_ray_service_meets_its_schema_too(values: Document) -> None:
    """The pods and the Service inside the RayService meet Kubernetes' schema, as if they stood alone."""
    made = render(values)
    service = made.one("RayService")["spec"]["serveService"]
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Service", **service}, KUBERNETES, strict=True)
    pods = list(made.pods())
    if options := made.cluster.get("autoscalerOptions"):
        sidecar = {"name": "autoscaler", **{key: options[key] for key in _OF_A_CONTAINER}}
        pods[0]["spec"]["containers"].append(sidecar)
    for pod in pods:
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)
        declared = {volume["name"] for volume in pod["spec"]["volumes"]}
        for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
            assert {mount["name"] for mount in container["volumeMounts"]} <= declared


_OF_A_CONTAINER = ("imagePullPolicy", "resources", "securityContext", "volumeMounts")


def test_the_ray_service_has_what_kuberay_requires(values: Document) -> None:
    """The RayService has all required fields, and each worker group keeps its bounds."""
    made = render(values)
    paths = {path for path, _ in walk(made.one("RayService")["spec"], "spec", RAY_SERVICE)}
    assert paths.issuperset(RAY_SERVICE_REQUIRED)
    for group in made.workers.values():
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            {"rayClusterConfig": {"headGroupSpec": {"serviceAccount": "x"}}},
            "spec.rayClusterConfig.headGroupSpec.serviceA",
        ),
        ({"upgradeStrategy": {"type": "BlueGreen"}}, "spec.upgradeStrategy.type: 'BlueGreen'"),
        ({"rayClusterDeletionDelaySeconds": "60"}, "spec.rayClusterDeletionDelaySeconds: '60' is not int32"),
        ({"rayClusterConfig": {"workerGroupSpecs": [{"minReplicas": True}]}}, "minReplicas: True is not int32"),
    ],
)
def test_a_field_that_kuberay_does_not_know_is_found(change: Document, fault: str) -> None:
    """The check of custom resources finds an unknown field, an unknown value and a wrong type."""
    (found,) = faults({"kind": "RayService", "spec": change})
    assert fault in found


@pytest.mark.parametrize(
    "part", ["punctual/Chart.yaml", "punctual/values.yaml", "punctual/ci", "punctual/rules", "observe"]
)
def test_chart_testing_finds_nothing_to_mend(part: str) -> None:
    """The chart's YAML is as chart-testing's rules for yamllint ask."""
    helm = CHART.parent
    command = [program("yamllint"), "--strict", "--config-file", str(helm / "lintconf.yaml"), str(helm / part)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout


def test_a_runbook_that_nobody_can_read_is_warned_of() -> None:
    """Alerts and dashboards link to the operator's own runbook, and the notes say where its address is missing."""
    for part in ("prometheusRule", "dashboards"):
        assert "prometheusRule.runbook" in render({part: {"enabled": True}}).notes
    own = {"prometheusRule": {"enabled": True, "runbook": "https://wiki.example.org/punctual"}}
    made = render(own)
    assert "prometheusRule.runbook" not in made.notes and "prometheusRule.runbook" not in render().notes
    rules = [one for one in made.documents if one["kind"] == "PrometheusRule"]
    assert rules and "punctual.example" not in json.dumps(rules)


STEPS = {"gatewayClassName": "istio", "stepSizePercent": 20}


@pytest.mark.parametrize(
    ("values", "path", "made_of"),
    [
        (
            {"upgrade": {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": STEPS}},
            ("upgradeStrategy", "clusterUpgradeOptions"),
            {**STEPS, "intervalSeconds": 30, "maxSurgePercent": 100},
        ),
        ({"auth": {"mode": "token"}}, ("rayClusterConfig", "authOptions"), {"mode": "token"}),
        (
            {"auth": {"mode": "token", "existingSecret": "ray"}},
            ("rayClusterConfig", "authOptions"),
            {"mode": "token", "secretName": "ray"},
        ),
        (
            {"head": {"faultTolerance": {"backend": "rocksdb"}}},
            ("rayClusterConfig", "gcsFaultToleranceOptions"),
            {"backend": "rocksdb", "storage": {"size": "1Gi"}},
        ),
        (
            {"head": {"faultTolerance": {"backend": "rocksdb", "storage": {"existingClaim": "gcs"}}}},
            ("rayClusterConfig", "gcsFaultToleranceOptions"),
            {"backend": "rocksdb", "storage": {"claimName": "gcs"}},
        ),
    ],
)
def test_fields_of_kuberay_1_7_are_there_where_they_are_asked_for(
    values: Document, path: tuple[str, str], made_of: Document
) -> None:
    """What an operator of 1.7 or later can do is a value, and a field that older ones lack is absent without it."""
    above, field = path
    service = render(values).one("RayService")
    assert faults(service) == [] and service["spec"][above][field] == made_of
    assert field not in render().one("RayService")["spec"][above]


def test_an_upgrade_in_steps_needs_a_gateway() -> None:
    """Without the class of a Gateway controller the chart says which value is missing."""
    with pytest.raises(HelmError, match="gatewayClassName"):
        render({"upgrade": {"strategy": "NewClusterWithIncrementalUpgrade"}})


def test_names_fit_kuberay_whatever_the_release_is_called() -> None:
    """A RayService's name is never longer than the operator accepts, whatever the release is called."""
    files = chart().render({}, name="r" * 53, namespace=NAMESPACE)
    name = next(
        line for line in files["punctual/templates/rayservice.yaml"].splitlines() if line.startswith("  name: ")
    )
    assert len(name.removeprefix("  name: ")) <= LONGEST_NAME
    for refused in ("1st", "a.b"):
        with pytest.raises(HelmError, match="set fullnameOverride"):
            chart().render({}, name=refused, namespace=NAMESPACE)
    with pytest.raises(HelmError, match="/fullnameOverride"):
        render({"fullnameOverride": "n" * (LONGEST_NAME + 1)})


def test_production_turns_everything_on() -> None:
    """The worked example has an Ingress, two ingress replicas, scaling, monitors, a policy and a volume."""
    made = render(production())
    for kind in ("Ingress", "PersistentVolumeClaim", "ScrapeConfig", "PodDisruptionBudget", "ServiceAccount"):
        made.one(kind)
    assert len(made.of_kind("NetworkPolicy")) == len(made.of_kind("PrometheusRule")) == 2
    assert production()["catalog"]["ingress"]["replicas"] >= 2
    assert made.cluster["enableInTreeAutoscaling"] is True
    assert any(group["maxReplicas"] > group["minReplicas"] for group in made.workers.values())
    assert not made.of_kind("Secret"), "it names one, so none is made"


def test_each_switch_turns_its_part_off() -> None:
    """With every switch off, only the parts that a gateway needs are left."""
    off: dict[str, Any] = {"enabled": False}
    left = render({"podDisruptionBudget": off, "networkPolicy": off, "tests": off, "serviceAccount": {"create": False}})
    assert sorted(document["kind"] for document in left.documents) == ["ConfigMap", "RayService", "Secret"]
    rules = {"prometheusRule": {"enabled": True, "alerts": False}}
    assert render(rules).one("PrometheusRule")["metadata"]["name"] == f"{FULLNAME}-recording"


def test_rules_and_dashboards_are_the_files_themselves() -> None:
    """The deployed rules and dashboards are the tested files, apart from the runbook's address."""
    runbook = "https://wiki.test/operating"
    made = render({"prometheusRule": {"enabled": True, "runbook": runbook}, "dashboards": {"enabled": True}})
    for name in ("recording", "alerts"):
        written = (CHART / "rules" / f"{name}.yaml").read_text()
        assert (PLACEHOLDER in written) is (name == "alerts")
        expected = yaml.safe_load(written.replace(PLACEHOLDER, runbook))
        assert made.one("PrometheusRule", f"{FULLNAME}-{name}")["spec"] == expected
    shown = {}
    for document in made.of_kind("ConfigMap"):
        if document["metadata"]["labels"].get("grafana_dashboard") == "1":
            assert document["metadata"]["annotations"] == {"grafana_folder": "Punctual"}
            shown.update(document["data"])
    files = sorted((CHART / "dashboards").glob("*.json"))
    assert files
    assert {name: json.loads(text) for name, text in shown.items()} == {
        file.name: json.loads(file.read_text().replace(PLACEHOLDER, runbook)) for file in files
    }

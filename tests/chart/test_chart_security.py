"""What a pod may do, and the transport's certificates: made once, kept at upgrades, never in an environment."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from helm_python import Config, HelmError
from rendered_chart import FULLNAME, NAMESPACE, RELEASE, Document, Rendered, chart, production, render, rendered

from deployments.transport import Certificates

SECRET = f"{FULLNAME}-transport"
KEYS = ("ca.crt", "tls.crt", "tls.key")


@contextmanager
def cluster(secrets: dict[str, Document]) -> Iterator[str]:
    """A Kubernetes API that knows the Secrets of one namespace and nothing else; yields its address."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = {
                "/api": {"kind": "APIVersions", "versions": ["v1"]},
                "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
                "/api/v1": {
                    "kind": "APIResourceList",
                    "groupVersion": "v1",
                    "resources": [{"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}],
                },
                "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
                **{f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}": one for name, one in secrets.items()},
            }.get(path)
            absent = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            body = json.dumps(found or absent).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def render_beside(secrets: dict[str, Document], folder: Path, values: Document | None = None) -> Rendered:
    """The chart rendered beside a cluster that has these Secrets."""
    nothing = folder / "kubeconfig"
    nothing.write_text("apiVersion: v1\nkind: Config\n")
    with cluster(secrets) as api, Config(kubeconfig_path=nothing, kube_apiserver=api, namespace=NAMESPACE) as config:
        return rendered(
            config.render(chart(), values or {}, name=RELEASE, namespace=NAMESPACE, is_upgrade=bool(secrets))
        )


def test_an_upgrade_keeps_the_certificates(tmp_path: Path) -> None:
    """The first install makes valid certificates, and an upgrade keeps them."""
    first = render_beside({}, tmp_path).one("Secret", SECRET)
    assert (first["type"], tuple(first["data"])) == ("kubernetes.io/tls", KEYS), "and no key of the CA"
    for name, content in first["data"].items():
        (tmp_path / name).write_bytes(base64.b64decode(content))
    Certificates(tmp_path).check()
    again = render_beside({SECRET: first}, tmp_path).one("Secret", SECRET)
    assert again["data"] == first["data"]
    other = render_beside({}, tmp_path).one("Secret", SECRET)
    assert other["data"] != first["data"], "a second release gets its own"


@pytest.mark.parametrize(
    "values", [{"transport": {"existingSecret": "mine"}}, {"linkSecret": {"existingSecret": "mine", "key": "token"}}]
)
def test_an_operators_own_secret_is_mounted_and_none_is_made(values: Document) -> None:
    """An operator's own Secret, by the present or the former value, is mounted in every pod, and none is made."""
    made = render(values)
    assert not made.of_kind("Secret")
    for pod in made.pods():
        (mounted,) = (volume["secret"] for volume in pod["spec"]["volumes"] if volume["name"] == "transport")
        assert (mounted["secretName"], mounted["items"]) == ("mine", [{"key": key, "path": key} for key in KEYS])


def test_an_operators_secret_without_certificates_is_named(tmp_path: Path) -> None:
    """An operator's Secret without certificates is refused by its name when the chart is rendered."""
    former = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"}, "data": {"secret": "eA=="}}
    with pytest.raises(HelmError, match=r"Secret mine lacks ca\.crt, tls\.crt or tls\.key"):
        render_beside({"mine": former}, tmp_path, {"linkSecret": {"existingSecret": "mine"}})


def test_the_key_is_a_file_and_never_an_argument_or_a_variable() -> None:
    """The private key is mounted as a file, never an argument or variable, which Ray would store or show."""
    made = render()
    value = made.one("Secret", SECRET)["data"]["tls.key"]
    rest = json.dumps([one for one in made.documents if one["kind"] != "Secret"])
    assert value not in rest
    assert base64.b64decode(value).decode().splitlines()[1] not in rest
    assert "secretKeyRef" not in rest


@pytest.mark.parametrize("values", [{}, production(), {"autoscaler": {"enabled": True}}])
def test_no_container_can_do_more_than_it_must(values: Document) -> None:
    """No container runs as root, gains privileges, has capabilities or writes to its root file system."""
    made = render(values)
    pods = [*made.pods(), made.one("Pod")]
    containers = [one for pod in pods for one in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ()))]
    sidecars = [options] if (options := made.cluster.get("autoscalerOptions")) else []
    for container in (*containers, *sidecars):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    for pod in pods:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["automountServiceAccountToken"] is False
    for container in containers:
        assert {"requests", "limits"} <= container["resources"].keys()


def test_only_the_autoscaler_has_a_token() -> None:
    """Only the autoscaler's container has a token for the API server; the one that runs checkpoints has none."""
    made = render({"autoscaler": {"enabled": True}})
    where = "/var/run/secrets/kubernetes.io/serviceaccount"
    mounts = {mount["mountPath"]: mount["name"] for mount in made.cluster["autoscalerOptions"]["volumeMounts"]}
    assert mounts[where] == "kube-api-access"
    for pod in made.pods():
        for container in (*pod["spec"]["containers"], *pod["spec"]["initContainers"]):
            assert "kube-api-access" not in {mount["name"] for mount in container["volumeMounts"]}
    assert made.one("ServiceAccount")["automountServiceAccountToken"] is False

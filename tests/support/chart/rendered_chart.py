"""The chart as Helm renders it, for the tests: its documents by kind and name, and the pods that KubeRay would make.

Knows where the chart lies and what a set of values is called. Real Helm does the rendering; no cluster is asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "punctual"
NAMESPACE = "serving"
RELEASE = "demo"
FULLNAME = "demo-punctual"

Document = dict[str, Any]


@cache
def chart() -> Chart:
    """Return the chart, loaded once."""
    return Chart.load(CHART)


def production() -> Document:
    """Return the worked example of values."""
    values: Document = yaml.safe_load((CHART / "ci" / "production-values.yaml").read_text())
    return values


@dataclass(frozen=True)
class Rendered:
    """The result of one rendering: every document, and the notes that an operator reads."""

    documents: tuple[Document, ...]
    notes: str

    def of_kind(self, kind: str) -> list[Document]:
        """Return the documents of a kind, in the order of their files."""
        return [document for document in self.documents if document["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Document:
        """Return the only document of that kind and, if given, that name."""
        (found,) = (one for one in self.of_kind(kind) if name in (None, one["metadata"]["name"]))
        return found

    @property
    def cluster(self) -> Document:
        """Return the RayService's cluster."""
        config: Document = self.one("RayService")["spec"]["rayClusterConfig"]
        return config

    @property
    def head(self) -> Document:
        """Return the head's pod, without what KubeRay adds."""
        template: Document = self.cluster["headGroupSpec"]["template"]
        return template

    @property
    def workers(self) -> Mapping[str, Document]:
        """Return the worker group of each tier, by its name."""
        return {group["groupName"]: group for group in self.cluster["workerGroupSpecs"]}

    def pods(self) -> Iterator[Document]:
        """Yield the pods of the head and of each group, as documents of their own."""
        for template in (self.head, *(group["template"] for group in self.workers.values())):
            metadata = {**template["metadata"], "name": "pod"}
            yield {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}

    def serve_config(self) -> Document:
        """Return the config that Ray Serve receives."""
        config: Document = yaml.safe_load(self.one("RayService")["spec"]["serveConfigV2"])
        return config


def render(values: Mapping[str, Any] | None = None) -> Rendered:
    """Return the chart with these values over its own, rendered once. Raises HelmError."""
    return _render(json.dumps(values or {}))


@cache
def _render(values: str) -> Rendered:
    return rendered(chart().render(json.loads(values), name=RELEASE, namespace=NAMESPACE))


def rendered(files: Mapping[str, str]) -> Rendered:
    """Return Helm's output, by file, as documents."""
    notes = next(text for name, text in files.items() if name.endswith("NOTES.txt"))
    texts = (text for name, text in files.items() if not name.endswith("NOTES.txt"))
    documents = (document for text in texts for document in yaml.load_all(text, yaml.CSafeLoader) if document)
    return Rendered(tuple(documents), notes)

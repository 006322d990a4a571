"""A learnt ranker to a folder that anyone can serve, check and read about."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from deployments.replica.summarize.ranking import DEFAULT_COUNT, SCHEMA, Ranker
from exporters.starter.extractive.card import LIMITS, card
from exporters.starter.extractive.corpus import ACLSUM
from exporters.starter.extractive.encode import Encoder
from exporters.starter.extractive.learn import Recipe
from exporters.starter.extractive.manifest import Data, ExtractiveCheckpoint, General, Held, write_manifest
from exporters.starter.manifest import FILENAME, Provenance
from exporters.starter.registry import VADER, file_sha256

DESCRIPTION, RANKER = "extractive.json", "ranker.json"
LIBRARIES = ("numpy", "torch", "transformers", "tokenizers", "sentencex", "rouge-score")


@dataclass(frozen=True)
class Made:
    """A ranker with all that its card says of it."""

    name: str
    tier: str
    encoder: str
    cut: Encoder
    recipe: Recipe
    ranker: Ranker
    documents: dict[str, int]
    sentences: dict[str, int]
    test: Held
    validation: Held
    general: General
    wall_s: float


def publish(made: Made, heldout: Path, out: Path) -> ExtractiveCheckpoint:
    """Write one checkpoint's folder under `out` and answer with its manifest."""
    folder = out / made.name
    folder.mkdir(parents=True, exist_ok=True)
    made.ranker.save(folder / RANKER)
    (folder / DESCRIPTION).write_text(json.dumps(_description(made), indent=2) + "\n", encoding="utf-8")
    manifest = _manifest(made, heldout)
    (folder / "README.md").write_text(card(manifest), encoding="utf-8")
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir()) if path.name != FILENAME}
    manifest = manifest.model_copy(update={"files": files})
    write_manifest(manifest, folder)
    return manifest


def _description(made: Made) -> dict[str, int | str]:
    """What an exporter has to know: which encoder, its mean-pooled hidden state after which layer, and the ranker."""
    return {
        "schema": SCHEMA,
        "encoder": f"starter:{made.encoder}",
        "pooling": "mean",
        "layer": made.cut.layer,
        "max_tokens": made.cut.max_tokens,
        "ranker": RANKER,
        "sentences": DEFAULT_COUNT,
    }


def _manifest(made: Made, heldout: Path) -> ExtractiveCheckpoint:
    config = json.loads((made.cut.folder / "config.json").read_bytes())
    papers = Provenance(
        what="ACLSum, papers with three human summaries each",
        package=ACLSUM.name,
        version=ACLSUM.version,
        sha256=ACLSUM.sha256,
        licence=ACLSUM.licence,
        by="Sotaro Takeshita, Tommaso Green, Ines Reinig, Kai Eckert and Simone Paolo Ponzetto, NAACL 2024",
    )
    general = Provenance(
        what="newspaper editorials and product reviews of the VADER ground truth",
        package=VADER.name,
        version=VADER.version,
        sha256=VADER.sha256,
        licence=VADER.licence,
        by="C.J. Hutto and Eric Gilbert, ICWSM 2014",
    )
    return ExtractiveCheckpoint(
        name=made.name,
        task="summarize",
        tier=made.tier,
        encoder=f"starter:{made.encoder}",
        encoder_sha256=file_sha256(made.cut.folder / "model.safetensors"),
        layer=made.cut.layer,
        layers=config.get("n_layers") or config["num_hidden_layers"],
        max_tokens=made.cut.max_tokens,
        sentences=DEFAULT_COUNT,
        recipe=asdict(made.recipe),
        data=Data(
            papers=papers,
            general=general,
            documents=made.documents,
            sentences=made.sentences,
            heldout_sha256=file_sha256(heldout),
        ),
        test=made.test,
        validation=made.validation,
        general=made.general,
        wall_s=round(made.wall_s, 1),
        libraries={"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        licences={"ranker": "Apache-2.0", "encoder": "Apache-2.0", "papers": ACLSUM.licence, "general": VADER.licence},
        limits=LIMITS,
        files={},
    )

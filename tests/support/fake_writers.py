"""Two checkpoints that write on from prompts, for tests: their catalog, manifests and answers."""

from __future__ import annotations

from byte_prompts import manifest

from gateway.catalogs.catalog import Catalog, CatalogEntry, Quality
from gateway.model.messages import Answer, Generation, InputReport, ReplicaTimings, Work
from gateway.model.tier import Tier
from gateway.tasks.generate import CausalManifest, GeneratedText

SCRIBBLER, NOVELIST = "scribbler", "novelist"
WRITTEN = " all is well."


def catalog() -> Catalog:
    """Return one checkpoint that is quick, and one that is good."""

    def entry(name: str, tier: Tier, quality: float) -> CatalogEntry:
        return CatalogEntry(
            name=name,
            task="generate",
            tier=tier,
            family="GPT-2",
            source="starter:by-hand",
            quality=Quality(metric="right", value=quality, data_set="by hand", reference="made up"),
            licence="none",
        )

    entries = (entry(SCRIBBLER, Tier.REALTIME, 30.0), entry(NOVELIST, Tier.QUALITY, 60.0))
    return Catalog(name="writers", checkpoints=entries)


def manifests() -> dict[str, CausalManifest]:
    """Return the manifests of the catalog's checkpoints, which are equally fast."""
    return {name: manifest().model_copy(update={"checkpoint": name}) for name in (SCRIBBLER, NOVELIST)}


def answered(checkpoint: str, work: Work) -> Answer:
    """Answer each prompt, or the conversation, in four tokens."""
    answers = 1 if work.parameters.roles else len(work.inputs)
    how = Generation("stop", 5, 4, 1, 40, 1, 0.5)
    report = InputReport(9 * answers, 9 * answers, False)
    timings = ReplicaTimings(0.001, 0.06, 0.061, 1)
    return Answer((GeneratedText(WRITTEN),) * answers, report, timings, (how,) * answers)

"""Two checkpoints that write on from prompts, for tests: their catalog, manifests and answers."""

from __future__ import annotations

from by_hand import entry_of
from byte_prompts import manifest

from gateway.catalogs.catalog import Catalog
from gateway.model.messages import Answer, Generation, InputReport, ReplicaTimings, Work
from gateway.model.tier import Tier
from gateway.tasks.generate import CausalManifest, GeneratedText

SCRIBBLER, NOVELIST = "scribbler", "novelist"
WRITTEN = " all is well."


def catalog() -> Catalog:
    """Return one checkpoint that is quick, and one that is good."""
    entries = (
        entry_of(SCRIBBLER, "generate", Tier.REALTIME, 30.0, "right", family="GPT-2"),
        entry_of(NOVELIST, "generate", Tier.QUALITY, 60.0, "right", family="GPT-2"),
    )
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

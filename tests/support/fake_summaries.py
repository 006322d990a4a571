"""Checkpoints that summarise, for tests: three of them beside the classifiers of `fakes`, and their answers.

Two extract sentences, one quickly and one well; the third writes, best of all, and only of its domain.
"""

from __future__ import annotations

from by_hand import SELF_TEST, entry_of, manifest_of
from fakes import ANSWER, MEDIANS_S, Behaviour, cell, manifest
from fakes import catalog as classifiers

from gateway.catalogs.catalog import Catalog, CatalogEntry, Limits
from gateway.model.manifest import (
    ChoiceVerification,
    ExtractiveManifest,
    GenerationRules,
    GoldenSummary,
    Precision,
    Seq2SeqManifest,
    TokenVerification,
    VariantManifest,
)
from gateway.model.messages import Answer, FinishReason, Generation, InputReport, ReplicaTimings, Work
from gateway.model.profile import ProfileDocument
from gateway.model.tier import Tier
from gateway.tasks.summarize import Summary

GLANCE, STUDY, SCRIBE = "glance", "study", "scribe"
DOMAIN = "software"
PER_TOKEN_S = {GLANCE: 0.000_01, STUDY: 0.001}
"""Seconds to read one token in full batches, by extractive checkpoint."""

WINDOW = 256
OUTPUT_TOKENS = 40.0
PAGE = "A page has sentences, and each of them says a thing. " * 57
"""About 3000 characters."""


def generation(reason: FinishReason = "stop", tokens: int = 5, **others: int | float | bool) -> Generation:
    """Return how a summary in one piece was written, by default with one beam and at most 128 tokens."""
    told: dict[str, int | float | bool] = {
        "steps": tokens + 1,
        "tokens": tokens,
        "beams": 1,
        "max_new_tokens": 128,
        "pieces": 1,
        "headroom_s": 0.5,
        **others,
    }
    return Generation(reason, **told)  # type: ignore[arg-type]  # by name, each of its own kind


def summary(
    *how: Generation, service_time_s: float = 0.002, tokens: int = 20, kept: int | None = None, text: str = "In short."
) -> Answer:
    """Return an answer with a summary for each `how`; its texts have `tokens` tokens together, all kept by default."""
    report = InputReport(tokens, tokens if kept is None else kept, kept is not None and kept < tokens)
    timings = ReplicaTimings(0.001, service_time_s, service_time_s + 0.001, 1)
    return Answer(tuple(Summary(text) for _ in how), report, timings, how)


SUMMARY = summary(generation())


def by_task(checkpoint: str, work: Work) -> Answer:
    """Answer the task of the work, always equally."""
    return SUMMARY if work.task == "summarize" else ANSWER


def as_each(answer: Answer) -> Behaviour:
    """Return a behaviour that gives this answer to each text to summarise, and `ANSWER` to others."""
    return lambda checkpoint, work: answer if work.task == "summarize" else ANSWER


def profile(per_row_s: float, batches: tuple[int, ...] = (1, 2, 4, 8), fixed_s: float = 0.0) -> ProfileDocument:
    """Return a profile that grows evenly with rows and tokens: `per_row_s` for one row of 32 tokens, plus `fixed_s`."""
    cells = tuple(cell(b, n, fixed_s + per_row_s * b * n / 32) for b in batches for n in (32, 128, WINDOW))
    return ProfileDocument(threads=1, measured_on="nothing", cells=cells)


def extractive_manifest(checkpoint: str, per_token_s: float) -> ExtractiveManifest:
    """Return the manifest of a checkpoint that extracts three sentences, at this many seconds a token."""
    return manifest_of(
        ExtractiveManifest,
        checkpoint,
        "summarize",
        precision=Precision.INT8,
        max_tokens=WINDOW,
        profile=profile(32 * per_token_s),
        sentences=3,
        verification=ChoiceVerification(
            texts=1, data_set="by hand", same_choice=1, same_choice_floor=0.9, least_cosine=0.99
        ),
        self_test=SELF_TEST,
    )


def seq2seq_manifest(
    encode_s: float = 0.010, step_s: float = 0.002, **rules: int | float | bool | str
) -> Seq2SeqManifest:
    """Return the manifest of scribe: `encode_s` to read a short text, `step_s` for each token at one beam.

    A further beam costs a quarter of the first, and a longer text adds little to a step.
    """
    told: dict[str, object] = {
        "decoder_start_token_id": 2,
        "eos_token_ids": (2,),
        "max_new_tokens": 128,
        "num_beams": 4,
        **rules,
    }
    steps = tuple(
        cell(rows, tokens, step_s * (0.75 + rows / 4) * (1 + tokens / 1000))
        for rows in (1, 2, 4, 8)
        for tokens in (32, 128, WINDOW)
    )
    return manifest_of(
        Seq2SeqManifest,
        SCRIBE,
        "summarize",
        family="BART",
        precision=Precision.INT8,
        max_tokens=WINDOW,
        profile=profile(encode_s, (1,)),
        generation=GenerationRules.model_validate(told),
        output_tokens=OUTPUT_TOKENS,
        verification=TokenVerification(
            texts=1, data_set="by hand", same_tokens=1, same_tokens_floor=0.9, rouge_l_to_source=1
        ),
        self_test=(GoldenSummary(text="a", token_ids=(1,), written=(3,)),),
        step_profile=ProfileDocument(threads=1, measured_on="nothing", cells=steps),
    )


def entry(name: str, tier: Tier, value: float, domain: str | None = None) -> CatalogEntry:
    """Return the entry of a summarizer with this quality, in points."""
    return entry_of(name, "summarize", tier, value, "ROUGE-L", domain=domain)


def catalog(limits: Limits | None = None) -> Catalog:
    """Return the classifiers, then glance (realtime), study (quality) and scribe (quality, of one domain)."""
    summarizers = (
        entry(GLANCE, Tier.REALTIME, 20.0),
        entry(STUDY, Tier.QUALITY, 30.0),
        entry(SCRIBE, Tier.QUALITY, 40.0, DOMAIN),
    )
    made = classifiers(limits)
    return made.model_copy(update={"checkpoints": (*made.checkpoints, *summarizers)})


def manifests() -> dict[str, VariantManifest]:
    """Return the manifests of the whole of `catalog()`."""
    return {
        **{name: manifest(name, median_s) for name, median_s in MEDIANS_S.items()},
        **{name: extractive_manifest(name, per_token_s) for name, per_token_s in PER_TOKEN_S.items()},
        SCRIBE: seq2seq_manifest(),
    }

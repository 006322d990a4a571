"""Checkpoints that translate, for tests: two of one pair, one of another, one of many languages; and their answers."""

from __future__ import annotations

from by_hand import entry_of, manifest_of
from fakes import cell

from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.manifest import GenerationRules, GoldenSummary, TokenVerification
from gateway.model.messages import Answer, Generation, InputReport, ReplicaTimings, Work
from gateway.model.profile import ProfileDocument
from gateway.model.tier import Tier
from gateway.tasks.translate import LanguageTokens, Pair, Translation, TranslatorManifest

QUICK, GOOD, FRENCH, BABEL = "quick", "good", "french", "babel"
TRANSLATED = "Alles ist gut."
WINDOW = 24
EN_DE = (Pair(source="en", target="de"),)
TOKENS = LanguageTokens(ids={"eng_Latn": 40, "deu_Latn": 41, "zho_Hans": 42, "zho_Hant": 43})


def manifest(
    name: str = QUICK, pairs: tuple[Pair, ...] = EN_DE, languages: LanguageTokens | None = None, **rules: object
) -> TranslatorManifest:
    """Return a manifest: 20 ms to read a text with the first token, 10 ms for each later one and row."""
    given = {"decoder_start_token_id": 2, "eos_token_ids": (2,), "max_new_tokens": 40, "num_beams": 1, **rules}

    def profile(seconds: float) -> ProfileDocument:
        cells = tuple(cell(rows, tokens, seconds * rows) for rows in (1, 2, 4, 8) for tokens in (8, WINDOW))
        return ProfileDocument(threads=1, measured_on="a desk", cells=cells)

    return manifest_of(
        TranslatorManifest,
        name,
        "translate",
        family="Marian",
        max_tokens=WINDOW,
        pad_token_id=0,
        files={"tokenizer.json": "0" * 64},
        profile=profile(0.02),
        step_profile=profile(0.01),
        pairs=pairs,
        languages=languages,
        generation=GenerationRules.model_validate(given),
        output_tokens=6.0,
        input_tokens=6.0,
        verified=("en", "de"),
        verification=TokenVerification(
            texts=1, data_set="none", same_tokens=1.0, same_tokens_floor=0.9, rouge_l_to_source=1.0
        ),
        self_test=(GoldenSummary(text="a", token_ids=(1,), written=(2,)),),
    )


def catalog() -> Catalog:
    """Return a quick and a good one for English and German, one for English and French, and one for many languages."""

    def entry(name: str, tier: Tier, quality: float) -> CatalogEntry:
        return entry_of(name, "translate", tier, quality, "chrF", family="Marian")

    entries = (
        entry(QUICK, Tier.REALTIME, 40.0),
        entry(FRENCH, Tier.REALTIME, 45.0),
        entry(BABEL, Tier.BALANCED, 50.0),
        entry(GOOD, Tier.QUALITY, 60.0),
    )
    return Catalog(name="translators", checkpoints=entries)


def manifests() -> dict[str, TranslatorManifest]:
    """Return the manifests of the catalog's checkpoints, which are equally fast."""
    return {
        QUICK: manifest(QUICK),
        GOOD: manifest(GOOD),
        FRENCH: manifest(FRENCH, (Pair(source="en", target="fr"),)),
        BABEL: manifest(BABEL, (), TOKENS),
    }


def answered(checkpoint: str, work: Work) -> Answer:
    """Answer each text in four tokens."""
    how = Generation("stop", 5, 4, 1, 40, 1, 0.5)
    report = InputReport(9 * len(work.inputs), 9 * len(work.inputs), False)
    timings = ReplicaTimings(0.001, 0.06, 0.061, 1)
    return Answer((Translation(TRANSLATED),) * len(work.inputs), report, timings, (how,) * len(work.inputs))

"""The manifest of an extractive checkpoint, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from exporters.starter.cards import Part, Provenance, filled, named, settings_table

TEMPLATE = Path(__file__).with_name("card.md")


class Figures(Part):
    """Mean ROUGE F1 in percent, with stemming."""

    rouge1: float
    rouge2: float
    rougeL: float
    rougeLsum: float


class Difference(Part):
    """A mean gain in points with its 95 % confidence interval, by paired bootstrap over the papers."""

    mean: float
    low: float
    high: float


class Held(Part):
    """Scores of three-sentence extracts of one split's papers: this checkpoint's and the baselines'."""

    papers: int
    own: Figures
    lead: Figures
    chance: Figures
    oracle: Figures
    gain_over_lead: dict[str, Difference]


class General(Part):
    """ROUGE-1 F1 in percent of an extract against the rest of its text, for texts other than papers."""

    texts: int
    own: float
    lead: float


class Data(Part):
    """The data trained and scored on; `heldout_sha256` is of the file beside the checkpoints."""

    papers: Provenance
    general: Provenance
    documents: dict[str, int]
    sentences: dict[str, int]
    heldout_sha256: str


class ExtractiveCheckpoint(Part):
    """One extractive starter checkpoint; `validation` is the score of a ranker trained on the train split only."""

    name: str
    task: str
    tier: str
    encoder: str
    encoder_sha256: str
    layer: int
    layers: int
    max_tokens: int
    sentences: int
    recipe: dict[str, float | int | bool]
    data: Data
    test: Held
    validation: Held
    general: General
    wall_s: float
    libraries: dict[str, str]
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


LIMITS = (
    "English only: another language is split less well, and its embeddings mean little.",
    "It quotes: a summary reads as well as its sentences do alone, and `this` or `he` may point to what was left out.",
    "Learnt from computational-linguistics papers and from the importance of sentences in editorials and reviews; "
    "nobody has judged its extracts of other texts.",
    "Papers state their point in their opening and say `we propose`: it looks for both, also where they mean less.",
    "Of three texts of other kinds that were read by hand (a news story, instructions, a review) no extract was "
    "absurd, but `extract-realtime` left out the story's first sentence, which said what had happened, and both missed "
    "the review's verdict at its end.",
    "On papers the two extractive checkpoints are alike: ROUGE-1 speaks for `extract-quality`, ROUGE-2 and ROUGE-L for "
    "`extract-realtime`.",
    "A sentence is read alone, up to its first 128 tokens; it knows neither sections nor tables nor code.",
    "Lists, tables and texts without punctuation are cut at line borders, and what is chosen of them may say little.",
    "Not for medical, legal or financial use, nor wherever leaving out a sentence could do harm.",
)


def card(manifest: ExtractiveCheckpoint) -> str:
    """The checkpoint's README in Markdown."""
    test, validation, sides = manifest.test, manifest.validation, manifest.data.documents.items()
    unseen = "(used for choices; the ranker had seen train alone)"
    gains = (
        f"| {kind} | {gain.mean:+.2f} | {gain.low:+.2f} to {gain.high:+.2f} |"
        for kind, gain in test.gain_over_lead.items()
    )
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        test=_table(f"ACLSum test, {test.papers} papers", test),
        validation=_table(f"ACLSum val, {validation.papers} papers {unseen}", validation),
        gain="\n".join(gains),
        counts="\n".join(f"| {side} | {n:,} | {manifest.data.sentences[side]:,} |" for side, n in sides),
        settings=settings_table(manifest.recipe),
        libraries=named(manifest.libraries),
    )


def _table(title: str, held: Held) -> str:
    rows = {
        "**this checkpoint**": held.own,
        "the first three sentences": held.lead,
        "three sentences by chance": held.chance,
        "three sentences, the summaries in hand (greedy)": held.oracle,
    }
    head = f"| {title} | ROUGE-1 | ROUGE-2 | ROUGE-L | ROUGE-Lsum |\n|---|---:|---:|---:|---:|\n"
    return head + "".join(
        f"| {name} | {f.rouge1:.2f} | {f.rouge2:.2f} | {f.rougeL:.2f} | {f.rougeLsum:.2f} |\n"
        for name, f in rows.items()
    )

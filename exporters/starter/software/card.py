"""The manifest of the abstractive checkpoint, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from exporters.starter.cards import Part, Provenance, filled, of_training, table_rows

TEMPLATE = Path(__file__).with_name("card.md")

Figure = tuple[float, float, float]
"""A mean in points, with the lower and upper bound of its 95 % bootstrap interval."""


class Data(Part):
    """The pairs: their selection, the split rule, the count of each side, the digest of the held-out file."""

    what: str
    by: str
    releases: tuple[str, ...]
    licence: str
    kept: str
    split_rule: str
    pairs: dict[str, int]
    heldout_sha256: str


class Score(Part):
    """Mean ROUGE F1 with stemming over the texts."""

    texts: int
    rouge1: Figure
    rouge2: Figure
    rougeL: Figure


class Scores(Part):
    """Scores of the shipped files in fp32: beam search as configured, greedy decoding, and two baselines."""

    beam: Score
    greedy: Score
    first_sentence: Score
    first_words: Score
    margin: Figure
    """The paired gain of beam search over the first sentence, in points of ROUGE-L."""


class Training(Part):
    """How the weights were trained; `settings` is the recipe as run."""

    method: str
    settings: dict[str, float | int | str | None]
    steps: int
    epochs: float
    loss: float
    wall_s: float
    threads: int
    libraries: dict[str, str]


class Example(Part):
    """One held-out text, with its human summary and the checkpoint's."""

    text: str
    people: str
    checkpoint: str
    rougeL: float


class SummariserManifest(Part):
    """The abstractive starter checkpoint."""

    name: str
    task: str
    tier: str
    family: str
    architecture: str
    encoder_layers: int
    decoder_layers: int
    width: int
    parameters: int
    vocabulary: int
    stored_precision: str
    text_tokens: int
    generation: dict[str, float | int | bool]
    base: Provenance
    data: Data
    heldout: Scores
    dev: Scores
    training: Training
    examples: tuple[Example, ...]
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


DATA_LICENCE = (
    "Debian package metadata, each description under the terms of its own package (all free by the Debian Free "
    "Software Guidelines; each package's debian/copyright names them)"
)
METHOD = (
    "A BART whose encoder is MiniLM, layer by layer: a BART encoder layer computes what a BERT layer does. The "
    "decoder's layers begin as MiniLM's layers 0, 2 and 4, their attention to the text as the same layers' "
    "self-attention; words are one table for encoder, decoder and output. Taught to write a package's synopsis from "
    "its description: cross-entropy with label smoothing, AdamW with one rate for what MiniLM brought and one for the "
    "decoder, batches of alike lengths."
)
LIMITS = (
    "It knows one genre: descriptions of software. Of any other text it makes software, fluently and wrongly.",
    "It can name what is not in the text: read the summary beside the text and never instead of it.",
    "One line of about 6 to 12 words, in the style of a Debian synopsis; not a summary of several sentences.",
    "English only, and lower-cased: names and abbreviations come out in small letters, marks apart from words.",
    "It learnt from the first 128 tokens of a text; what stands after them it was never taught to read.",
    "Not for decisions about people, nor for medical, legal or financial use.",
)


def card(manifest: SummariserManifest) -> str:
    """The checkpoint's README in Markdown, with the YAML header of model hubs."""
    training = manifest.training
    examples = (
        f"> {one.text}\n\n- people: {one.people}\n- checkpoint: {one.checkpoint} (ROUGE-L {one.rougeL})\n"
        for one in manifest.examples
    )
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        licence=manifest.licences["weights"].lower(),
        millions=manifest.parameters / 1e6,
        heldout=_table(manifest.heldout),
        dev=_table(manifest.dev),
        generation=", ".join(f"`{name}` {value}" for name, value in manifest.generation.items()),
        examples="\n".join(examples),
        releases=", ".join(manifest.data.releases),
        **of_training(training.wall_s, training.settings, training.libraries),
    )


def _table(scores: Scores) -> str:
    named_scores = {
        "**this checkpoint, beam search**": scores.beam,
        "this checkpoint, greedy": scores.greedy,
        "the first sentence": scores.first_sentence,
        "the first 12 words": scores.first_words,
    }
    rows = (
        (name, *(_figure(*figure) for figure in (score.rouge1, score.rouge2, score.rougeL)))
        for name, score in named_scores.items()
    )
    return f"| | ROUGE-1 | ROUGE-2 | ROUGE-L |\n|---|---:|---:|---:|\n{table_rows(rows)}"


def _figure(mean: float, low: float, high: float) -> str:
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"

"""The manifest of a sentiment classifier, and its card, which is written from the manifest alone."""

from __future__ import annotations

from pathlib import Path

from exporters.starter.cards import Part, Provenance, filled, of_training, percent, table_rows

TEMPLATE = Path(__file__).with_name("card.md")


class Data(Part):
    """The sentences: their package, the split rule, the count of each side, the digest of `heldout.jsonl`."""

    origin: Provenance
    kept: str
    split_rule: str
    sentences: dict[str, int]
    heldout_sha256: str


class Score(Part):
    """Accuracy over a number of sentences, with its 95 % Wilson interval."""

    sentences: int
    accuracy: float
    low: float
    high: float


class Scores(Part):
    """Scores of the shipped files in fp32. Settings and epochs were chosen on dev."""

    heldout: Score
    heldout_by_source: dict[str, Score]
    dev: Score


class Training(Part):
    """How the weights were trained; `settings` is the recipe as run."""

    method: str
    teachers: tuple[str, ...]
    settings: dict[str, float | int | str | None]
    dev_accuracy_by_epoch: tuple[float, ...]
    kept_epoch: int
    wall_s: float
    build_wall_s: float
    threads: int
    libraries: dict[str, str]


class Manifest(Part):
    """One starter checkpoint."""

    name: str
    task: str
    tier: str
    family: str
    architecture: str
    layers: int
    width: int
    parameters: int
    vocabulary: int
    labels: tuple[str, ...]
    stored_precision: str
    base: Provenance
    data: Data
    scores: Scores
    training: Training
    licences: dict[str, str]
    limits: tuple[str, ...]
    files: dict[str, str]


METHODS = {
    "minilm-sentiment": (
        "Fine-tuned from MiniLM's six layers with a fresh two-way head (3 epochs, learning rate 5e-5), on the train "
        "side: labelled sentences, lukewarm ones and the lexicon's words. It learns how strong an opinion is and not "
        "only its sign: a mean rating r counts as P(positive) = sigmoid(1.5 r). Then taught once more, by its own "
        "answers averaged with those of the three-layer student it had taught: 0.3 cross-entropy with the ratings + "
        "0.7 KL divergence from that average at temperature 2, random fragments of the sentences included. The "
        "settings below are those of this last run."
    ),
    "distilbert-sentiment": (
        "Made of layers 0, 2 and 4 of a six-layer MiniLM fine-tuned for it, the token-type embedding folded into the "
        "positions, then distilled: 0.3 cross-entropy with the ratings + 0.7 KL divergence from the teacher at "
        "temperature 2, over what the teacher learnt from and a random fragment of each sentence of it, which the "
        "teacher alone labels."
    ),
}
LIMITS = (
    "English only, lower-cased; text in other languages gets an answer that means nothing.",
    "One or two sentences at a time is what it learnt from; a longer text is cut at 512 tokens and scored as one.",
    "Two labels: neutral or mixed text still gets one of them, so read the probability and not only the label.",
    "Sarcasm, negation over a distance and opinions held by someone quoted are its commonest mistakes.",
    "Raters in 2014 judged films, products, tweets and newspaper editorials: names, events and slang since then are "
    "unknown to it, and it repeats what those raters and its pre-training text associate with groups of people.",
    "Not for decisions about people, nor for medical, legal or financial use.",
)


def card(manifest: Manifest) -> str:
    """The checkpoint's README in Markdown."""
    training = manifest.training
    return filled(
        TEMPLATE,
        manifest,
        manifest.limits,
        millions=manifest.parameters / 1e6,
        labels=" or ".join(f"`{label}`" for label in manifest.labels),
        table=table_rows(score_rows(manifest.scores)),
        epochs=", ".join(percent(share) for share in training.dev_accuracy_by_epoch),
        taught=" and ".join(f"`{name}`" for name in training.teachers),
        build_minutes=training.build_wall_s / 60,
        **of_training(training.wall_s, training.settings, training.libraries),
    )


def score_rows(scores: Scores) -> list[tuple[str, ...]]:
    """The rows of a card's table of scores."""
    rows = [_row(source, score) for source, score in scores.heldout_by_source.items()]
    return [*rows, _row("**all held out**", scores.heldout), _row("dev (used for choices)", scores.dev)]


def _row(name: str, score: Score) -> tuple[str, ...]:
    interval = f"{percent(score.low)} to {percent(score.high)}"
    return (name, f"{score.sentences:,}", percent(score.accuracy), interval)

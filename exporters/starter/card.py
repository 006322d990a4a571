"""The model card a person reads, written from the manifest alone, so that no figure in it is copied by hand."""

from __future__ import annotations

from exporters.starter.manifest import Manifest, Score

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
    parts = [
        _head(manifest),
        _scores(manifest),
        _data(manifest),
        _training(manifest),
        _use(manifest),
        _licences(manifest),
    ]
    return "\n".join(parts)


def _head(m: Manifest) -> str:
    labels = " or ".join(f"`{label}`" for label in m.labels)
    return f"""# {m.name}

Says whether an English sentence is {labels}. A {m.family} (`{m.architecture}`): {m.layers} layers,
{m.width} wide, {m.parameters / 1e6:.1f} M parameters, {m.vocabulary:,} word pieces.
Stored in {m.stored_precision}, meant to be computed in float32 or exported.
Offered for task `{m.task}`, tier `{m.tier}`.

This card is generated from [`manifest.json`](manifest.json) by the build that measured it.
"""


def _scores(m: Manifest) -> str:
    rows = [_row(source, score) for source, score in m.scores.heldout_by_source.items()]
    rows += [_row("**all held out**", m.scores.heldout), _row("dev (used for choices)", m.scores.dev)]
    table = "\n".join(rows)
    return f"""## Accuracy

| sentences from | sentences | accuracy | 95 % interval |
|---|---:|---:|---:|
{table}

Measured on the files in this folder, computed in float32. Settings and epochs were chosen on dev. While the
recipe was made, the held-out sentences were scored twice: a first six-layer checkpoint proved no better than its own
student, on dev (89.6 % against 89.9 %) as on them (87.6 % against 87.8 %), and was taught again; the student stayed.
The interval is Wilson's: chance in which sentences were held out. It says nothing about text of another kind.
"""


def _row(name: str, score: Score) -> str:
    return f"| {name} | {score.sentences:,} | {_pc(score.accuracy)} | {_pc(score.low)} to {_pc(score.high)} |"


def _data(m: Manifest) -> str:
    n = m.data.sentences
    origin = m.data.origin
    return f"""## Data

The {origin.what} by {origin.by}: film reviews, product reviews, tweets and newspaper
editorials, each sentence rated from -4 to 4 by 20 people. From the sdist of `{origin.package}=={origin.version}`
(sha256 `{origin.sha256}`).

Kept: {m.data.kept}. Equal texts are merged.
Split: {m.data.split_rule}. {n["train"]:,} train, {n["dev"]:,} dev, {n["heldout"]:,} held out;
on the train side besides: {n["lukewarm"]:,} lukewarm sentences and {n["lexicon"]:,} words of VADER's lexicon,
each rated by 10 people.
The held-out sentences travel with the code as `heldout.jsonl` (sha256 `{m.data.heldout_sha256}`).
"""


def _training(m: Manifest) -> str:
    t = m.training
    epochs = ", ".join(_pc(a) for a in t.dev_accuracy_by_epoch)
    settings = "\n".join(f"| {key} | {value} |" for key, value in t.settings.items() if value is not None)
    libraries = ", ".join(f"{name} {number}" for name, number in t.libraries.items())
    taught = " and ".join(f"`{name}`" for name in t.teachers)
    return f"""## Training

{t.method}

Taught by {taught}. Dev accuracy by epoch: {epochs}; epoch {t.kept_epoch} was kept.
{t.wall_s / 60:.0f} minutes on {t.threads} CPU cores ({t.build_wall_s / 60:.0f} with what it builds on). {libraries}.

| setting | value |
|---|---|
{settings}

Base: {m.base.what}, from `{m.base.package}=={m.base.version}` (sha256 `{m.base.sha256}`), its vocabulary pruned to
{m.vocabulary:,} pieces: every piece of what it learnt from, every single character, then the most frequent.

Rebuild: `python -m exporters.starter --out DIR`.
"""


def _use(m: Manifest) -> str:
    limits = "\n".join(f"- {limit}" for limit in m.limits)
    return f"""## Use and limits

For trying an inference gateway with a real model of known quality, and for sorting short English opinions where a
mistake is cheap.

{limits}
"""


def _licences(m: Manifest) -> str:
    return f"""## Licences

- Weights: derived from {m.base.what} by {m.base.by}, {m.base.licence}; changed by
  pruning the vocabulary and fine-tuning. The derived weights are offered under {m.licences["weights"]}.
- Data: VADER ground truth, Copyright (c) 2016 C.J. Hutto, {m.data.origin.licence}; the notice is in `NOTICE.md` beside
  `heldout.jsonl`.
  C.J. Hutto and E.E. Gilbert: VADER: A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text.
  Eighth International Conference on Weblogs and Social Media (ICWSM-14), 2014.
"""


def _pc(share: float) -> str:
    return f"{100 * share:.1f} %"

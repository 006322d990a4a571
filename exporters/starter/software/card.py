"""The summariser's model card, written from the manifest alone, so that no figure in it is copied by hand."""

from __future__ import annotations

from exporters.starter.software.manifest import Figure, Score, Scores, SummariserManifest

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
    """The checkpoint's README in Markdown, its header in YAML as model hubs read it."""
    parts = [_header(manifest), _head(manifest), _scores(manifest), _examples(manifest), _data(manifest)]
    return "\n".join([*parts, _training(manifest), _use(manifest), _licences(manifest)])


def _header(m: SummariserManifest) -> str:
    return f"""---
license: {m.licences["weights"].lower()}
language: en
library_name: transformers
pipeline_tag: summarization
tags: [bart, summarization, debian, software]
---"""


def _head(m: SummariserManifest) -> str:
    return f"""# {m.name}

Says in one line what a piece of software is, from its description. A {m.family} (`{m.architecture}`):
{m.encoder_layers} encoder and {m.decoder_layers} decoder layers, {m.width} wide,
{m.parameters / 1e6:.1f} M parameters, {m.vocabulary:,} word pieces.
Stored in {m.stored_precision}, meant to be computed in float32 or exported.
Offered for task `{m.task}`, tier `{m.tier}`.

This card is generated from [`manifest.json`](manifest.json) by the build that measured it.
"""


def _scores(m: SummariserManifest) -> str:
    above, low, high = m.heldout.margin
    settings = ", ".join(f"`{name}` {value}" for name, value in m.generation.items())
    return f"""## How near it comes to what people wrote

ROUGE F1 in points, with stemming, on {m.heldout.beam.texts} held-out descriptions; in brackets the 95 % interval.

{_table(m.heldout)}

Beam search is {above:.1f} points of ROUGE-L above the first sentence ({low:.1f} to {high:.1f}, paired).

On dev, {m.dev.beam.texts} descriptions that the settings were chosen on:

{_table(m.dev)}

Measured on the files in this folder, computed in float32, by `rouge-score`. Settings of the beam search:
{settings}.
The intervals are bootstrap intervals: chance in which descriptions were held out. They say nothing about text of
another kind. These weights were scored once before, on 300 descriptions of which 28 were later taken out for being near
a text learnt from: 40.6 points of ROUGE-L with the same beam search, 10.4 above the first sentence.
"""


def _table(scores: Scores) -> str:
    named = {
        "**this checkpoint, beam search**": scores.beam,
        "this checkpoint, greedy": scores.greedy,
        "the first sentence": scores.first_sentence,
        "the first 12 words": scores.first_words,
    }
    rows = [f"| {name} | {_row(score)} |" for name, score in named.items()]
    return "\n".join(["| | ROUGE-1 | ROUGE-2 | ROUGE-L |", "|---|---:|---:|---:|", *rows])


def _row(score: Score) -> str:
    return " | ".join(_figure(figure) for figure in (score.rouge1, score.rouge2, score.rougeL))


def _figure(figure: Figure) -> str:
    mean, low, high = figure
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def _examples(m: SummariserManifest) -> str:
    shown = [
        f"> {one.text}\n\n- people: {one.people}\n- checkpoint: {one.checkpoint} (ROUGE-L {one.rougeL})\n"
        for one in m.examples
    ]
    return "\n".join(["## What it says\n\nHeld out; a good one, a middling one and a bad one by ROUGE-L.\n", *shown])


def _data(m: SummariserManifest) -> str:
    n = m.data.pairs
    return f"""## Data

Debian's {m.data.what} by {m.data.by}, releases {", ".join(m.data.releases)}, as apt brings them.
Kept: {m.data.kept}. Equal texts are merged.
Split: {m.data.split_rule}.
{n["train"]:,} train, {n["dev"]:,} dev, {n["heldout"]:,} held out, of which the first {m.heldout.beam.texts} are scored
and travel with the code as `software-heldout.jsonl` (sha256 `{m.data.heldout_sha256}`).
"""


def _training(m: SummariserManifest) -> str:
    t = m.training
    settings = "\n".join(f"| {key} | {value} |" for key, value in t.settings.items() if value is not None)
    libraries = ", ".join(f"{name} {number}" for name, number in t.libraries.items())
    return f"""## Training

{t.method}

{t.steps:,} steps, {t.epochs:.1f} epochs, {t.wall_s / 60:.0f} minutes on {t.threads} CPU cores; loss {t.loss:.2f} at
the end. {libraries}.

| setting | value |
|---|---|
{settings}

Base: {m.base.what}, from `{m.base.package}=={m.base.version}` (sha256 `{m.base.sha256}`), its vocabulary pruned to
{m.vocabulary:,} pieces: every single character, then those that the train side uses most.

Rebuild: `python -m exporters.starter.software --out DIR`, on Debian. The archive moves on: a later one gives other
pairs and so other weights.
"""


def _use(m: SummariserManifest) -> str:
    limits = "\n".join(f"- {limit}" for limit in m.limits)
    return f"""## Use and limits

For trying an inference gateway with a real encoder and decoder of known quality, and for a first draft of a synopsis.

{limits}
"""


def _licences(m: SummariserManifest) -> str:
    return f"""## Licences

- Weights: derived from {m.base.what} by {m.base.by}, {m.base.licence}; changed by pruning
  the vocabulary, adding a decoder and fine-tuning. The derived weights are offered under {m.licences["weights"]}.
- Data: {m.data.licence}. The held-out descriptions are quoted from there.
"""

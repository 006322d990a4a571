"""The card a person reads, written from the manifest alone, so that no figure in it is copied by hand."""

from __future__ import annotations

from exporters.starter.extractive.manifest import ExtractiveCheckpoint, Figures, Held

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
    return "\n".join((_head(manifest), _scores(manifest), _data(manifest), _recipe(manifest), _end(manifest)))


def _head(m: ExtractiveCheckpoint) -> str:
    return f"""# {m.name}

Summarises an English text by quoting it: {m.sentences} of its sentences (of short texts at most half), in their order.
A linear ranker over sentence embeddings; no weights of its own but `ranker.json`. An embedding is the hidden state of
`{m.encoder}` after layer {m.layer} of {m.layers}, averaged over all of a sentence's tokens, at most {m.max_tokens}.
Offered for task `{m.task}`, tier `{m.tier}`.

This card is generated from [`manifest.json`](manifest.json) by the build that measured it.
"""


def _scores(m: ExtractiveCheckpoint) -> str:
    gain = "\n".join(
        f"| {kind} | {d.mean:+.2f} | {d.low:+.2f} to {d.high:+.2f} |" for kind, d in m.test.gain_over_lead.items()
    )
    return f"""## ROUGE

Extracts of three sentences against the three human summaries together (challenge, approach, outcome).

{_table(f"ACLSum test, {m.test.papers} papers", m.test)}
{_table(f"ACLSum val, {m.validation.papers} papers (used for choices; the ranker had seen train alone)", m.validation)}
Gain over the first three sentences on test, in points, with the 95 % interval of a paired bootstrap over papers:

| | gain | 95 % interval |
|---|---:|---:|
{gain}

F1 in percent, `rouge-score` with stemming. The interval is chance in which papers were held out; it says nothing about
texts of another kind. On {m.general.texts} editorials and reviews that it did not learn from, which have no summaries,
the ROUGE-1 of its extracts against the rest of the text is {m.general.own:.2f}; that of the opening sentences is
{m.general.lead:.2f}.
"""


def _table(title: str, held: Held) -> str:
    rows = (
        ("**this checkpoint**", held.own),
        ("the first three sentences", held.lead),
        ("three sentences by chance", held.chance),
        ("three sentences, the summaries in hand (greedy)", held.oracle),
    )
    body = "\n".join(_row(name, figures) for name, figures in rows)
    return f"""| {title} | ROUGE-1 | ROUGE-2 | ROUGE-L | ROUGE-Lsum |
|---|---:|---:|---:|---:|
{body}
"""


def _row(name: str, f: Figures) -> str:
    return f"| {name} | {f.rouge1:.2f} | {f.rouge2:.2f} | {f.rougeL:.2f} | {f.rougeLsum:.2f} |"


def _data(m: ExtractiveCheckpoint) -> str:
    papers, general = m.data.papers, m.data.general
    counts = "\n".join(f"| {side} | {n:,} | {m.data.sentences[side]:,} |" for side, n in m.data.documents.items())
    return f"""## Data

{papers.what} ({papers.by}): abstract, introduction and conclusion, each sentence marked for each of the three aspects.
From `{papers.package}=={papers.version}` (sha256 `{papers.sha256}`), spaces before punctuation taken out.
Texts without summaries: {general.what} ({general.by}), from `{general.package}=={general.version}`
(sha256 `{general.sha256}`), split by their first sentences as the sentiment checkpoints' sentences are.

| side | texts | sentences |
|---|---:|---:|
{counts}

The test papers from 2016 on travel with the code as `summaries-heldout.jsonl` (sha256 `{m.data.heldout_sha256}`).
"""


def _recipe(m: ExtractiveCheckpoint) -> str:
    settings = "\n".join(f"| {key} | {value} |" for key, value in m.recipe.items())
    libraries = ", ".join(f"{name} {number}" for name, number in m.libraries.items())
    return f"""## Recipe

Ridge regression in closed form. Targets: which sentences of the papers of train and val people marked; in the other
texts, ROUGE-1 of a sentence against the rest (gap-sentence importance, as in PEGASUS). Inputs: the sentence's embedding
of unit length, with `neighbours` those of the sentences before and after, and place, length, centrality and form.
With three `views` there is one regression for each aspect. Sentences are then chosen one by one: good from all views
and (`spread`) best from some, less `redundancy` times the cosine with those already chosen. Settings were chosen by
five-fold cross-validation over train and val.

| setting | value |
|---|---|
{settings}

Rebuild: `python -m exporters.starter.extractive --out DIR`. This took {m.wall_s:.0f} s, for most sentences had an
embedding in the cache already. {libraries}.
"""


def _end(m: ExtractiveCheckpoint) -> str:
    limits = "\n".join(f"- {limit}" for limit in m.limits)
    return f"""## Use and limits

For trying an inference gateway with summaries that state nothing their source does not, and for skimming.

{limits}

## Licences

- Ranker: {m.licences["ranker"]}. Encoder: `{m.encoder}`, {m.licences["encoder"]}, on its own card.
- ACLSum: {m.licences["papers"]} by its package. S. Takeshita, T. Green, I. Reinig, K. Eckert, S.P. Ponzetto: ACLSum: A
  New Dataset for Aspect-based Summarization of Scientific Publications. NAACL 2024. The papers themselves are their
  authors', from the ACL Anthology; those that travel with the code are of 2016 or later, CC BY 4.0, by name and title.
- VADER ground truth: Copyright (c) 2016 C.J. Hutto, {m.licences["general"]}; the notice is in `NOTICE.md`.
"""

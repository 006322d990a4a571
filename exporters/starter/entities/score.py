"""Scores the shipped general tagger and its teacher: `python -m exporters.starter.entities.score`.

On the texts marked by hand both are scored; on held-out sentences the teacher's entities are taken for right.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from deployments.replica.tagging.entities import Tagger
from deployments.replica.tagging.reading import TextReader
from deployments.replica.tokens import TOKENIZER_FILE
from deployments.replica.variant import file_sha256
from exporters.kinds.original import load_original
from exporters.sources.source import resolve_source
from exporters.sources.texts import ENTITIES
from exporters.starter.command import Tick, Ticker, run
from exporters.starter.entities.card import EntitiesCard, Score, Scores, table
from exporters.starter.entities.card import Marked as MarkedScores
from exporters.starter.entities.labels import KINDS, Labels, ask, mapped
from exporters.starter.entities.material import LABELS, heldout_of
from exporters.starter.publishing import read_manifest
from exporters.starter.taggers.score import Marked, Span, read_marked, scored
from exporters.verification import run_rows
from gateway.tasks.tokens import OUTSIDE, Aggregation

NAME = "minilm-entities"
AGGREGATION: Aggregation = "first"
"""Words are labelled whole, by their first piece."""


def again(out: Path, cache: Path, ticker: Ticker, smoke: bool = False) -> EntitiesCard:
    """The manifest of the checkpoint below `out`, with scores measured anew; a smoke run leaves held-out sentences out.

    Raises NotFetched, CannotBuild.
    """
    folder = out / "checkpoints" / NAME
    whole = resolve_source(str(folder), cache=cache).path
    labels = ask([one.text for one in read_marked(ENTITIES)], cache, ticker("teacher, marked by hand"))
    heldout = [] if smoke else heldout_of(cache, ticker)
    scores = measure(whole, heldout, labels, ticker(NAME))
    return read_manifest(folder, EntitiesCard).model_copy(update={"scores": scores})


def found_by(whole: Path, texts: Sequence[str], tick: Tick) -> list[list[Span]]:
    """The entities that a merged checkpoint finds in each text, made as they are served."""
    original = load_original(whole, NAME, "AutoModelForTokenClassification", "a tagger")
    reader = TextReader.open(whole / TOKENIZER_FILE, original.window)
    tagger = Tagger(Tokenizer.from_file(str(whole / TOKENIZER_FILE)), LABELS, original.tokenizer.unk_token_id)
    reads = [reader.read(text) for text in texts]
    rows = [row.token_ids for read in reads for row in reader.encoded(read)]
    logits = iter(run_rows(rows, original.runner(), lambda share: tick(round(share * len(rows)), len(rows), "scoring")))
    found: list[list[Span]] = []
    for read in reads:
        joined = reader.joined(read, [next(logits) for _ in read.windows])
        entities = tagger.entities(read, joined, AGGREGATION, (OUTSIDE,))
        found.append([(each.start, each.end, str(each.entity_group)) for each in entities])
    return found


def score(marked: Sequence[Marked], found: Sequence[Sequence[Span]], kind: str | None = None) -> Score:
    """The score of what was found in each text; of one kind if it is given."""
    if kind is not None:
        marked = [Marked(one.text, tuple(span for span in one.spans if span[2] == kind)) for one in marked]
        found = [[span for span in spans if span[2] == kind] for spans in found]
    one = scored(marked, found)
    entities = sum(len(text.spans) for text in marked)
    return Score(
        texts=len(marked),
        entities=entities,
        precision=round(one.precision, 4),
        recall=round(one.recall, 4),
        f1=round(one.f1, 4),
    )


def by_group(groups: Sequence[str], marked: Sequence[Marked], found: Sequence[Sequence[Span]]) -> dict[str, Score]:
    """The score of the texts of each group."""
    rows = list(zip(groups, marked, found, strict=True))
    return {
        group: score(
            [one for other, one, _ in rows if other == group], [own for other, _, own in rows if other == group]
        )
        for group in dict.fromkeys(groups)
    }


def measure(whole: Path, heldout: Sequence[tuple[str, Marked]], labels: Labels, tick: Tick) -> Scores:
    """Scores a merged checkpoint, and the teacher, whose labels of the marked texts are given."""
    marked = read_marked(ENTITIES)
    sorts = [json.loads(line)["sort"] for line in ENTITIES.read_text(encoding="utf-8").splitlines()]
    given = [one for _, one in heldout]
    both = found_by(whole, [one.text for one in (*marked, *given)], tick)
    own, taught = both[: len(marked)], both[len(marked) :]
    teacher = [mapped(one.text, spans) for one, spans in zip(marked, labels.spans, strict=True)]
    return Scores(
        marked=MarkedScores(
            data_sha256=file_sha256(ENTITIES),
            all=score(marked, own),
            by_sort=by_group(sorts, marked, own),
            by_kind={kind: score(marked, own, kind) for kind in KINDS},
            teacher=score(marked, teacher),
            teacher_by_sort=by_group(sorts, marked, teacher),
            teacher_by_kind={kind: score(marked, teacher, kind) for kind in KINDS},
        ),
        taught=score(given, taught),
        taught_by_source=by_group([source for source, _ in heldout], given, taught),
    )


if __name__ == "__main__":
    sys.exit(run("exporters.starter.entities.score", __doc__, again, table))

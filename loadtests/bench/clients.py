"""`punctual bench clients`: compares what a stock client is answered with what transformers makes of the same source.

`InferenceClient` of huggingface_hub asks each checkpoint over HTTP; the reference is the source in float32, run by
transformers' pipeline of the task. Embedders have no pipeline: theirs is the cosine of the source's own vectors. Texts
have emoji and letters of other scripts among them. Tasks that write are not compared here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress

from deployments.replica.sentences import split_sentences
from exporters.kinds.original import pipeline_of
from exporters.options import DEFAULT_CACHE, DEFAULT_CATALOG, CacheOption, CatalogOption
from exporters.sources.source import read_object, resolve_source
from exporters.sources.texts import HELDOUT, PERSONAL, SUMMARIES, read_texts
from gateway.catalogs.catalog import Catalog, CatalogEntry
from gateway.model.request import BUDGET, CHECKPOINT
from gateway.tasks.fill import MASKS
from loadtests import options
from loadtests.bench.measuring.report import Report, Table, Verdict, present
from loadtests.bench.peers.servers import gateway

if TYPE_CHECKING:
    from huggingface_hub import InferenceClient

WITHIN_S = 30.0
DECORATIONS = ("", " 😀", " (日本語)", " «ça va»", " שלום", " 👩‍🔬 done", " ½ €", " \t ")
"""What is put behind the texts, one after the other, as other people write: of eight texts one stays as it is."""

TOPICS = ("a film", "food", "a product", "politics", "the weather")
OTHERS = ("The film was wonderful.", "The battery is empty.", "They won the election.", "The soup was cold.")
SHORTEST_MASKED = 4
"""Letters of a word that is masked, so that it says something."""


@dataclass(frozen=True)
class Told:
    """One answer: `what` must be equal (a label, spans, a word), and `scores` may be a little off."""

    what: object
    scores: Sequence[float] = ()


Ask: TypeAlias = "Callable[[InferenceClient, str], Told]"
Reference: TypeAlias = Callable[[str], Told | None]
"""Gives what transformers makes of a text, or None where that does not compare."""


@dataclass(frozen=True)
class Comparison:
    """How one task is compared: its texts, how the client asks, and the reference from a source's folder.

    `what` names what is held equal; at least the share `floor` of the texts must have it so. int8 moves near ties.
    """

    what: str
    floor: float
    texts: Callable[[], Sequence[str]]
    ask: Ask
    reference: Callable[[Path, str], Reference]


@dataclass(frozen=True)
class Compared:
    """One checkpoint at one task: how many texts have equal answers, and how far scores are off at the median and most.

    Scores are compared where the answers are equal. `unequal` are the first texts that have another answer.
    """

    task: str
    checkpoint: str
    what: str
    floor: float
    texts: int
    equal: int
    median_off: float
    most_off: float
    unequal: Sequence[str]

    @property
    def share(self) -> float:
        """The share of texts with equal answers, from 0 to 1."""
        return self.equal / self.texts if self.texts else 0.0


def command(
    catalog: CatalogOption = DEFAULT_CATALOG,
    cache: CacheOption = DEFAULT_CACHE,
    texts: Annotated[int, typer.Option(min=1, help="texts for each checkpoint and task")] = 200,
    task: Annotated[list[str] | None, typer.Option(help="compare this task only; repeatable")] = None,
    json: options.Json = None,
) -> None:
    """Compares what a stock client is answered with what transformers' pipelines make of the source."""
    unknown = [one for one in task or () if one not in COMPARISONS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(COMPARISONS)}", param_hint="--task")
    loaded, variants = options.prepared(catalog, cache)
    found = measure(loaded, variants, cache, texts, task or list(COMPARISONS), options.console)
    raise typer.Exit(present(report_of(found), options.console, json=json))


def measure(
    catalog: Catalog, variants: Mapping[str, Path], cache: Path, texts: int, tasks: Sequence[str], console: Console
) -> list[Compared]:
    """Serves the catalog and compares each checkpoint at each of the tasks that it serves. Raises ServerFailed."""
    found = []
    with ExitStack() as stack:
        with console.status("starting the gateway"):
            url = stack.enter_context(gateway(catalog, variants)).url
        bar = stack.enter_context(Progress(console=console))
        for task in tasks:
            for entry in catalog.of_task(task):
                row = bar.add_task(f"{task}: {entry.name}", total=texts)
                found.append(compared(url, task, entry, cache, texts, partial(bar.advance, row)))
    return found


def report_of(found: Sequence[Compared]) -> Report:
    """A row for each checkpoint and task, and a verdict for each; nothing compared is a missed target."""
    rows = [
        (
            one.task,
            one.checkpoint,
            str(one.texts),
            f"{one.what}: {one.share:.1%}",
            *map(_score, (one.median_off, one.most_off)),
        )
        for one in found
    ]
    verdicts = [
        Verdict(
            f"{one.task}, {one.checkpoint}: {one.what} as the source's for {one.share:.1%} of {one.texts} texts, "
            f"at least {one.floor:.1%} asked",
            met=one.share >= one.floor,
        )
        for one in found
    ]
    headings = ("task", "checkpoint", "texts", "equal", "score off, median", "most")
    return Report(
        tables=[Table("answers to InferenceClient beside transformers'", headings, rows)],
        document={"compared": found},
        verdicts=verdicts or [Verdict("nothing was compared", met=False)],
    )


def _score(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"


def compared(url: str, task: str, entry: CatalogEntry, cache: Path, most: int, advance: Callable[[], None]) -> Compared:
    """Asks one checkpoint of a running gateway, and its source, for the answers to at most `most` texts."""
    from huggingface_hub import InferenceClient

    how = COMPARISONS[task]
    headers = {CHECKPOINT: entry.name, BUDGET: f"{WITHIN_S * 1000:.0f}"}
    client = InferenceClient(model=f"{url}/{task}", headers=headers, timeout=WITHIN_S)
    source = resolve_source(entry.source, entry.revision, cache)
    reference = how.reference(source.path, source.location)
    texts, equal, off, unequal = 0, 0, [], []
    for text in decorated(how.texts(), most):
        advance()
        meant = reference(text)
        if meant is None:
            continue
        texts += 1
        told = how.ask(client, text)
        if told.what == meant.what:
            equal += 1
            off += [abs(one - other) for one, other in zip(told.scores, meant.scores, strict=True)]
        else:
            unequal.append(f"{text[:80]}: {told.what!r}, the source {meant.what!r}")
    median, largest = (float(np.median(off)), max(off)) if off else (float("nan"), float("nan"))
    return Compared(task, entry.name, how.what, how.floor, texts, equal, median, largest, unequal[:5])


def decorated(texts: Sequence[str], most: int) -> list[str]:
    """At most `most` of the texts, spread over all of them; each with one of `DECORATIONS` behind it."""
    count = min(most, len(texts))
    spread = [texts[at * len(texts) // count] for at in range(count)]
    return [text + end for text, end in zip(spread, islice(cycle(DECORATIONS), count), strict=True)]


def _sentences() -> list[str]:
    return [one.text for one in read_texts(HELDOUT).texts]


def _personal() -> list[str]:
    return [one.text for one in read_texts(PERSONAL).texts] + _sentences()[::12]


def _masked() -> list[str]:
    """Sentences with their longest word left out."""
    found = []
    for text in _sentences():
        word = max(text.split(), key=len, default="")
        if len(word) >= SHORTEST_MASKED and word.isalpha():
            found.append(text.replace(word, MASKS[0], 1))
    return found


def _documents() -> list[str]:
    return [one.text for one in read_texts(SUMMARIES).texts]


def _fits(run: Any, text: str) -> bool:
    """True if a pipeline reads the text whole."""
    return bool(len(run.tokenizer(text)["input_ids"]) <= run.tokenizer.model_max_length)


def _labels(scores: Mapping[str, float]) -> Told:
    """The best label, and the scores in the order of their labels' names."""
    return Told(max(scores, key=scores.__getitem__), [scores[label] for label in sorted(scores)])


def _ask_classify(client: InferenceClient, text: str) -> Told:
    return _labels({one.label: one.score for one in client.text_classification(text)})


def _pipeline_classify(source: Path, location: str) -> Reference:
    run = pipeline_of("text-classification", source, top_k=None, truncation=True)
    return lambda text: _labels({one["label"]: one["score"] for one in run([text])[0]})


def _ask_tokens(client: InferenceClient, text: str) -> Told:
    found = client.token_classification(text, aggregation_strategy="simple")
    return Told([(one.entity_group, one.start, one.end) for one in found], [one.score for one in found])


def _pipeline_tokens(source: Path, location: str) -> Reference:
    """None for a text longer than the window, whose windows transformers joins by a rule of its own."""
    run = pipeline_of("token-classification", source, aggregation_strategy="simple")

    def told(text: str) -> Told | None:
        if not _fits(run, text):
            return None
        found = run(text)
        spans = [(one["entity_group"], one["start"], one["end"]) for one in found]
        return Told(spans, [float(one["score"]) for one in found])

    return told


def _ask_fill(client: InferenceClient, text: str) -> Told:
    best = client.fill_mask(text, top_k=1)[0]
    return Told(best.token_str.strip(), [best.score])


def _pipeline_fill(source: Path, location: str) -> Reference:
    run = pipeline_of("fill-mask", source, top_k=1)

    def told(text: str) -> Told | None:
        masked = text.replace(MASKS[0], run.tokenizer.mask_token)
        if not _fits(run, masked):
            return None
        best = run(masked)[0]
        return Told(best["token_str"].strip(), [best["score"]])

    return told


def _is_embedder(source: Path, location: str) -> bool:
    from exporters.kinds.embedder import EMBEDDER

    recognised: bool = EMBEDDER.recognises(source, read_object(source / "config.json", location))
    return recognised


Cosines: TypeAlias = Callable[[str, Sequence[str]], "list[float]"]
"""Gives the cosine of a text with each of others."""


def _source_cosines(source: Path, location: str) -> Cosines:
    """The cosines of a source's own vectors."""
    from exporters.kinds.embedder import source_vectors

    vectors = source_vectors(source, location)

    def cosines(text: str, others: Sequence[str]) -> list[float]:
        first, *rest = vectors([text, *others])
        return [float(first @ one) for one in rest]

    return cosines


def _nearest(cosines: Sequence[float]) -> int:
    return max(range(len(cosines)), key=cosines.__getitem__)


def _ask_embed(client: InferenceClient, text: str) -> Told:
    vector = np.asarray(client.feature_extraction(text), dtype=float).ravel()
    return Told(len(vector), (vector / np.linalg.norm(vector)).tolist())


def _vectors_embed(source: Path, location: str) -> Reference:
    from exporters.kinds.embedder import source_vectors

    vectors = source_vectors(source, location)

    def told(text: str) -> Told:
        [vector] = vectors([text])
        return Told(len(vector), vector.tolist())

    return told


def _ask_similarity(client: InferenceClient, text: str) -> Told:
    scores = client.sentence_similarity(text, other_sentences=list(OTHERS))
    return Told(_nearest(scores), scores)


def _vectors_similarity(source: Path, location: str) -> Reference:
    cosines = _source_cosines(source, location)

    def told(text: str) -> Told:
        scores = cosines(text, OTHERS)
        return Told(_nearest(scores), scores)

    return told


def _ask_zero_shot(client: InferenceClient, text: str) -> Told:
    return Told(client.zero_shot_classification(text, candidate_labels=list(TOPICS))[0].label)


def _best_topic(source: Path, location: str) -> Reference:
    """By the pipeline where the source is a classifier of entailment, else the nearest label by its vectors."""
    if _is_embedder(source, location):
        cosines = _source_cosines(source, location)
        return lambda text: Told(TOPICS[_nearest(cosines(text, TOPICS))])
    run = pipeline_of("zero-shot-classification", source)
    return lambda text: Told(run(text, candidate_labels=list(TOPICS))["labels"][0])


QUESTION = "What does this paper propose?"


def _ask_answer(client: InferenceClient, text: str) -> Told:
    found: Any = client.question_answering(QUESTION, text)
    best = found[0] if isinstance(found, list) else found
    return Told((best.start, best.end))


def _best_answer(source: Path, location: str) -> Reference:
    """By the pipeline where the source answers with spans, else the nearest sentence by its vectors."""
    if not _is_embedder(source, location):
        run = pipeline_of("question-answering", source)

        def span(text: str) -> Told:
            found = run(question=QUESTION, context=text)
            return Told((found["start"], found["end"]))

        return span
    cosines = _source_cosines(source, location)

    def sentence(text: str) -> Told:
        spans = split_sentences(text)
        best = spans[_nearest(cosines(QUESTION, [text[one.start : one.end] for one in spans]))]
        return Told((best.start, best.end))

    return sentence


COMPARISONS: Mapping[str, Comparison] = {
    "classify": Comparison("label", 0.97, _sentences, _ask_classify, _pipeline_classify),
    "embed": Comparison("dimensions", 1.0, _sentences, _ask_embed, _vectors_embed),
    "similarity": Comparison("nearest", 0.95, _sentences, _ask_similarity, _vectors_similarity),
    "zero-shot": Comparison("label", 0.95, _sentences, _ask_zero_shot, _best_topic),
    "tokens": Comparison("spans", 0.95, _personal, _ask_tokens, _pipeline_tokens),
    "answer": Comparison("answer", 0.95, _documents, _ask_answer, _best_answer),
    "fill": Comparison("word", 0.9, _masked, _ask_fill, _pipeline_fill),
}
"""How each task is compared, by its name. Floors are set by hand, under what the proofs of variants ask of a label."""

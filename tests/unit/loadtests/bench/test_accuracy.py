"""Accuracy over HTTP: whose labels are compared with whose, and what counts as a fault."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console
from small_variants import write_variant
from virtual_time import passes

from exporters.texts import HELDOUT_NAME, Sentence
from gateway.model.manifest import ClassifierManifest, Verification
from loadtests.bench.accuracy import Agreement, Unanswered, judge, labels_of, report_of
from loadtests.bench.report import present
from loadtests.client import NoReply, Reply

SENTENCES = [
    Sentence(f"sentence {at}", "positive" if at % 2 else "negative", 1.0, "tweets" if at < 400 else "editorials")
    for at in range(1000)
]
TRUE = [sentence.label for sentence in SENTENCES]


def flipped(labels: Sequence[str], *places: int) -> list[str]:
    """The labels, the other one at these places."""
    other = {"positive": "negative", "negative": "positive"}
    return [other[label] if at in places else label for at, label in enumerate(labels)]


@pytest.fixture
def manifest(tmp_path: Path) -> ClassifierManifest:
    """Of a variant that was verified on these sentences and was right on 990 of them."""
    verification = Verification(
        texts=1000,
        data_set=HELDOUT_NAME,
        label_agreement=0.99,
        label_agreement_floor=0.985,
        largest_logit_difference=0.1,
        accuracy=0.99,
        source_accuracy=0.99,
    )
    return write_variant(tmp_path / "variant").model_copy(update={"verification": verification})


def judged(
    manifest: ClassifierManifest, served: Sequence[str | Unanswered], source: Sequence[str] | None = None
) -> Agreement:
    """Against a variant that alone is wrong on the first ten."""
    return judge(manifest, SENTENCES, served, flipped(TRUE, *range(10)), source)


def test_a_gateway_that_answers_as_verified_is_without_fault(manifest: ClassifierManifest) -> None:
    """The same labels as the variant run alone, the same accuracy as in its manifest."""
    found = judged(manifest, flipped(TRUE, *range(10)))
    assert not found.faults() and found.apart == 0
    assert (found.overall.served_share, found.overall.alone_share, found.alone_agreement) == (0.99, 0.99, 1.0)
    assert {name: right.served for name, right in found.by_data_set.items()} == {"tweets": 390, "editorials": 600}


def test_batch_mates_may_turn_a_few_labels(manifest: ClassifierManifest) -> None:
    """Up to half a percent of the sentences; the report says how many there were."""
    assert judged(manifest, flipped(TRUE, *range(15))).apart == -5
    assert not judged(manifest, flipped(TRUE, *range(15))).faults()
    (fault,) = judged(manifest, flipped(TRUE, *range(16))).faults()
    assert "-6 right answers" in fault and "over the 5 allowed" in fault


def test_answers_that_are_mixed_up_are_a_fault(manifest: ClassifierManifest) -> None:
    """As many right as before, but on other sentences: the labels no longer agree with the variant's own."""
    found = judged(manifest, flipped(TRUE, *range(500, 510)))
    assert found.apart == 0
    assert found.alone_agreement == pytest.approx(0.98) and "run alone" in found.faults()[0]


def test_a_sentence_without_an_answer_is_a_fault_and_counts_as_wrong(manifest: ClassifierManifest) -> None:
    """Each reason with its count."""
    served: list[str | Unanswered] = [*flipped(TRUE, *range(10))]
    served[500] = served[501] = Unanswered("status 503")
    found = judged(manifest, served)
    assert found.faults() == ["2 sentences unanswered: status 503"] and found.overall.served == 988
    assert judged(manifest, [Unanswered("down")] * 1000).alone_agreement == 0.0


def test_agreement_with_the_source_has_a_floor(manifest: ClassifierManifest) -> None:
    """98.5 % by the manifest, and by a run of the source where one was asked for."""
    served = flipped(TRUE, *range(10))
    assert judged(manifest, served, source=flipped(TRUE, *range(25))).source_agreement == pytest.approx(0.985)
    assert not judged(manifest, served, source=flipped(TRUE, *range(25))).faults()
    assert "run now" in judged(manifest, served, source=flipped(TRUE, *range(26))).faults()[0]


def test_accuracy_on_other_texts_is_not_compared(manifest: ClassifierManifest) -> None:
    """A variant that was verified on texts of its own has no figure for these."""
    other = manifest.verification.model_copy(update={"data_set": "verification.jsonl", "accuracy": 0.5})
    found = judged(manifest.model_copy(update={"verification": other}), TRUE)
    assert found.apart is None and not found.faults()


def test_labels_differ_in_capitals_only_for_people(manifest: ClassifierManifest) -> None:
    """A checkpoint that says POSITIVE means positive."""
    assert judged(manifest, [label.upper() for label in TRUE]).overall.served == 1000


def test_a_report_is_shown_written_and_met_only_when_something_was_judged(
    manifest: ClassifierManifest, tmp_path: Path
) -> None:
    """A report of nothing proves nothing."""
    found = report_of(1000, [judged(manifest, TRUE)], ["emotions"])
    console = Console(width=160, file=(told := io.StringIO()))
    assert present(found, console, json=tmp_path / "accuracy.json") == 1
    assert "editorials" in told.getvalue() and "emotions" in told.getvalue()
    written = json.loads((tmp_path / "accuracy.json").read_text())
    assert "+10" in written["faults"][manifest.checkpoint][0] and written["skipped"] == ["emotions"]
    assert report_of(1000, [judged(manifest, flipped(TRUE, *range(10)))], []).met
    assert not report_of(1000, [], ["emotions"]).met


class Echo:
    """Labels a text by its own words, slowly for some, so that answers come back out of order."""

    def __init__(self) -> None:
        self.under_way = self.most = 0

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        text = json.loads(body)["inputs"]
        await passes(0.003 if text.endswith("0") else 0)
        self.under_way -= 1
        if text == "broken":
            raise NoReply("ServerDisconnectedError")
        if text == "busy":
            return Reply(503, {}, b"{}")
        answered = "other" if text == "strayed" else headers["X-Checkpoint"]
        content = b"{}" if text == "odd" else json.dumps([[{"label": text, "score": 1.0}]]).encode()
        return Reply(200, {"x-checkpoint": answered}, content)


@pytest.mark.virtual_time
async def test_labels_come_back_in_the_order_of_the_texts_a_few_at_a_time() -> None:
    """Whatever the order of the answers, each text keeps its own."""
    texts, server, steps = [f"text {at}" for at in range(50)], Echo(), []
    found = await labels_of(server, "student", texts, 8, lambda: steps.append(1))
    assert found == texts and len(steps) == 50 and server.most == 8


@pytest.mark.virtual_time
async def test_every_way_of_not_answering_has_its_reason() -> None:
    """A broken connection, a refusal, an answer of another checkpoint and one that is none."""
    found = await labels_of(Echo(), "student", ["broken", "busy", "strayed", "odd", "fine"], 2, lambda: None)
    whys = (
        "ServerDisconnectedError",
        "status 503",
        "answered by another checkpoint",
        "the answer is no list of labels",
    )
    assert found == [*map(Unanswered, whys), "fine"]

"""Accuracy over HTTP: which labels are compared, and what counts as a fault."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console
from small_variants import write_variant
from virtual_time import passes

from exporters.sources.texts import HELDOUT_NAME, Sentence
from gateway.model.manifest import ClassifierManifest, Verification
from loadtests.bench.accuracy import Agreement, Unanswered, judge, labels_of, report_of
from loadtests.bench.measuring.report import present
from loadtests.client import NoReply, Reply

SENTENCES = [
    Sentence(f"sentence {at}", "positive" if at % 2 else "negative", 1.0, "tweets" if at < 400 else "editorials")
    for at in range(1000)
]
TRUE = [sentence.label for sentence in SENTENCES]


def flipped(labels: Sequence[str], *places: int) -> list[str]:
    """The labels, with the other label at these places."""
    other = {"positive": "negative", "negative": "positive"}
    return [other[label] if at in places else label for at, label in enumerate(labels)]


@pytest.fixture
def manifest(tmp_path: Path) -> ClassifierManifest:
    """The manifest of a variant that was right on 990 of these 1,000 sentences."""
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
    """The agreement with a variant that, run alone, is wrong on the first ten sentences."""
    return judge(manifest, SENTENCES, served, flipped(TRUE, *range(10)), source)


def test_a_gateway_that_answers_as_verified_is_without_fault(manifest: ClassifierManifest) -> None:
    """A gateway that returns the variant's own labels has no fault, and the accuracy of the manifest."""
    found = judged(manifest, flipped(TRUE, *range(10)))
    assert not found.faults() and found.apart == 0
    assert (found.overall.served_share, found.overall.alone_share, found.alone_agreement) == (0.99, 0.99, 1.0)
    assert {name: right.served for name, right in found.by_data_set.items()} == {"tweets": 390, "editorials": 600}


def test_batch_mates_may_turn_a_few_labels(manifest: ClassifierManifest) -> None:
    """Batching may change the labels of up to half a percent of the sentences."""
    assert judged(manifest, flipped(TRUE, *range(15))).apart == -5
    assert not judged(manifest, flipped(TRUE, *range(15))).faults()
    (fault,) = judged(manifest, flipped(TRUE, *range(16))).faults()
    assert "-6 right answers" in fault and "over the 5 allowed" in fault


def test_answers_that_are_mixed_up_are_a_fault(manifest: ClassifierManifest) -> None:
    """Answers given to the wrong sentences are a fault, even if as many are right as before."""
    found = judged(manifest, flipped(TRUE, *range(500, 510)))
    assert found.apart == 0
    assert found.alone_agreement == pytest.approx(0.98) and "run alone" in found.faults()[0]


def test_a_sentence_without_an_answer_is_a_fault_and_counts_as_wrong(manifest: ClassifierManifest) -> None:
    """An unanswered sentence counts as wrong, and is a fault with its reason and count."""
    served: list[str | Unanswered] = [*flipped(TRUE, *range(10))]
    served[500] = served[501] = Unanswered("status 503")
    found = judged(manifest, served)
    assert found.faults() == ["2 sentences unanswered: status 503"] and found.overall.served == 988
    assert judged(manifest, [Unanswered("down")] * 1000).alone_agreement == 0.0


def test_agreement_with_the_source_has_a_floor(manifest: ClassifierManifest) -> None:
    """Agreement with the source must be at least 98.5 %, by the manifest and, if requested, by running the source."""
    served = flipped(TRUE, *range(10))
    assert judged(manifest, served, source=flipped(TRUE, *range(25))).source_agreement == pytest.approx(0.985)
    assert not judged(manifest, served, source=flipped(TRUE, *range(25))).faults()
    assert "run now" in judged(manifest, served, source=flipped(TRUE, *range(26))).faults()[0]


def test_accuracy_on_other_texts_is_not_compared(manifest: ClassifierManifest) -> None:
    """A variant that was verified on other texts has no accuracy to compare."""
    other = manifest.verification.model_copy(update={"data_set": "verification.jsonl", "accuracy": 0.5})
    found = judged(manifest.model_copy(update={"verification": other}), TRUE)
    assert found.apart is None and not found.faults()


def test_labels_differ_in_capitals_only_for_people(manifest: ClassifierManifest) -> None:
    """Labels are compared regardless of case: POSITIVE is positive."""
    assert judged(manifest, [label.upper() for label in TRUE]).overall.served == 1000


def test_a_report_is_shown_written_and_met_only_when_something_was_judged(
    manifest: ClassifierManifest, tmp_path: Path
) -> None:
    """A report without any judged checkpoint is not met, since it proves nothing."""
    found = report_of(1000, [judged(manifest, TRUE)], ["emotions"])
    console = Console(width=160, file=(told := io.StringIO()))
    assert present(found, console, json=tmp_path / "accuracy.json") == 1
    assert "editorials" in told.getvalue() and "emotions" in told.getvalue()
    written = json.loads((tmp_path / "accuracy.json").read_text())
    assert "+10" in written["faults"][manifest.checkpoint][0] and written["skipped"] == ["emotions"]
    assert report_of(1000, [judged(manifest, flipped(TRUE, *range(10)))], []).met
    assert not report_of(1000, [], ["emotions"]).met


class Echo:
    """Labels a text with the text itself, slowly for some, so that answers come back out of order."""

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
    """Labels come back in the order of the texts, whatever the order of the answers, at most eight at a time."""
    texts, server, steps = [f"text {at}" for at in range(50)], Echo(), []
    found = await labels_of(server, "student", texts, 8, lambda: steps.append(1))
    assert found == texts and len(steps) == 50 and server.most == 8


@pytest.mark.virtual_time
async def test_every_way_of_not_answering_has_its_reason() -> None:
    """A broken connection, a refusal, another checkpoint's answer and a malformed answer each have their own reason."""
    found = await labels_of(Echo(), "student", ["broken", "busy", "strayed", "odd", "fine"], 2, lambda: None)
    whys = (
        "ServerDisconnectedError",
        "status 503",
        "answered by another checkpoint",
        "the answer is no list of labels",
    )
    assert found == [*map(Unanswered, whys), "fine"]

"""The adviser in the situations of the usual guide to choosing transformers: it gives the guide's answer, or numbers.

Nothing is measured here, so latencies are estimates from the figures of the knowledge, on a machine of two cores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from gateway.advising.advice import Advice, Adviser
from gateway.advising.candidates import Offered
from gateway.advising.situation import Machine, Situation
from gateway.catalogs.catalog import load_catalog

SMALL = {"DistilBERT", "MobileBERT", "TinyBERT"}
NUMBER = re.compile(r"\d")


@dataclass(frozen=True)
class Row:
    """One row of the guide: what is asked, the families it recommends, and families that must be out, by which rule."""

    called: str
    asked: dict[str, Any]
    recommended: set[str]
    out: dict[str, str] = field(default_factory=dict)


GUIDE = (
    Row(
        "realtime English sentiment",
        {"task": "classify", "budget_ms": 50, "rate": 40, "max_tokens": 64, "labelled": 10_000},
        SMALL,
        {"bert-base-uncased": "load", "roberta-base": "load", "electra-large": "budget"},
    ),
    Row(
        "French",
        {"task": "classify", "languages": "fr", "labelled": 10_000},
        {"CamemBERT"},
        {"bert-base-uncased": "language", "distilbert-sst2": "language"},
    ),
    Row(
        "a hundred languages",
        {"task": "classify", "languages": "100", "labelled": 10_000},
        {"XLM-RoBERTa"},
        {"camembert-base": "language", "electra-base": "language"},
    ),
    Row(
        "several languages by name",
        {"task": "tokens", "languages": "en,fr,de,sw", "labelled": 10_000},
        {"XLM-RoBERTa"},
        {"roberta-base": "language"},
    ),
    Row(
        "long documents",
        {"task": "classify", "max_tokens": 4000, "budget_ms": 10_000, "rate": 0.1, "labelled": 10_000},
        {"Longformer"},
        {"roberta-base": "length", "bert-base-uncased": "length"},
    ),
    Row(
        "forms with layout",
        {"task": "tokens", "needs": "layout", "labelled": 10_000},
        {"LayoutLM"},
        {"bert-base-uncased": "offers"},
    ),
    Row("biomedical", {"task": "tokens", "domain": "biomedical", "labelled": 10_000}, {"BERT"}),
    Row("legal", {"task": "classify", "domain": "legal", "labelled": 10_000}, {"BERT"}),
    Row(
        "summaries",
        {"task": "summarize", "max_tokens": 800, "rate": 0.2},
        {"BART", "Pegasus"},
        {"bart-software": "domain"},
    ),
    Row(
        "translation of a pair",
        {"task": "translate", "languages": "en,de", "rate": 0.5, "budget_ms": 1000},
        {"MarianMT"},
        {"opus-mt-en-fr": "language", "bart-base": "language"},
    ),
    Row(
        "translation among many",
        {"task": "translate", "languages": "en,de,ja,sw", "rate": 0.5, "budget_ms": 1000, "labelled": 100_000},
        {"mT5"},
        {"opus-mt-en-de": "language", "t5-base": "language"},
    ),
    Row(
        "dialogue",
        {"task": "generate", "domain": "dialogue", "rate": 0.5, "budget_ms": 1000},
        {"DialoGPT"},
        {"dialogpt-medium": "budget"},
    ),
    Row(
        "controlled text",
        {"task": "generate", "needs": "control", "rate": 0.02, "budget_ms": 30_000},
        {"CTRL"},
        {"gpt2": "offers"},
    ),
    Row(
        "text that goes on",
        {"task": "generate", "rate": 0.5, "budget_ms": 1000},
        {"GPT-2", "DistilGPT-2", "GPT-Neo", "Llama"},
        {"ctrl": "offers", "dialogpt-small": "domain"},
    ),
    Row(
        "little memory",
        {"task": "classify", "memory_gb": 0.28, "labelled": 10_000},
        {"ALBERT", "TinyBERT"},
        {"bert-base-uncased": "serving memory", "distilbert-base-uncased": "serving memory"},
    ),
    Row(
        "few examples",
        {"task": "classify", "labelled": 300},
        {"ELECTRA"},
    ),
    Row(
        "no examples",
        {"task": "zero-shot", "labelled": 0, "budget_ms": 5000},
        {"BART", "BERT"},
        {"electra-large": "training"},
    ),
    Row(
        "a memory too small to fine-tune in",
        {"task": "classify", "labelled": 10_000, "memory_gb": 1.2, "train": True, "max_tokens": 64},
        {"ELECTRA", *SMALL, "ALBERT"},
        {"bert-base-uncased": "training memory", "electra-large": "training memory"},
    ),
)


@cache
def adviser() -> Adviser:
    """Return an adviser on the packaged catalogs, of which nothing was made or measured."""
    return Adviser([Offered(load_catalog("starter")), Offered(load_catalog("hub"))], Machine(2, 24e9))


def advised(**asked: Any) -> Advice:
    """Return what it says of a situation."""
    return adviser().advise(Situation(**asked))


@pytest.mark.parametrize("row", GUIDE, ids=lambda row: row.called)
def test_the_guide_is_followed(row: Row) -> None:
    """A family that the guide recommends is ranked first, and what it warns of is out for its reason, with a number."""
    advice = advised(**row.asked)
    assert advice.right and advice.right[0].family in row.recommended
    wrong = {one.name: one for one in advice.wrong}
    for name, rule in row.out.items():
        said = [reason.text for reason in wrong[name].why if reason.verdict == "out" and reason.rule == rule]
        assert said, [reason.text for reason in wrong[name].why]
        if rule not in ("language", "offers", "domain"):
            assert all(NUMBER.search(text) for text in said)


SUBJECTS = [("biomedical", "biobert-base-cased"), ("legal", "legal-bert-base-uncased")]


@pytest.mark.parametrize(("domain", "name"), SUBJECTS)
def test_a_subject_has_its_own_checkpoint(domain: str, name: str) -> None:
    """Texts of a subject get the checkpoint that was pretrained on it, and others of general text behind it."""
    advice = advised(task="classify", domain=domain, labelled=10_000)
    assert advice.right[0].name == name and advice.right[0].verdict == "in"
    assert all(one.verdict == "caution" for one in advice.right[1:])


def test_an_unknown_subject_is_said_to_be_unknown() -> None:
    """A subject that no checkpoint was pretrained on leaves the general ones, with a caution, and is said."""
    advice = advised(task="classify", domain="astronomy", labelled=10_000)
    assert all(one.verdict == "caution" for one in advice.right)
    assert any("astronomy" in sentence and "biomedical" in sentence for sentence in advice.unknown)


def test_a_budget_that_nothing_keeps_is_answered_with_numbers() -> None:
    """Where the guide's answer does not fit, no checkpoint is right, and each says by how much it is over."""
    advice = advised(task="classify", budget_ms=0.5, max_tokens=512, labelled=10_000)
    assert advice.right == ()
    over = [reason.text for one in advice.wrong for reason in one.why if reason.rule == "budget"]
    assert len(over) == len(advice.wrong) and all("over the budget of 0.5 ms" in text for text in over)


def test_ready_checkpoints_go_first_where_no_examples_were_named() -> None:
    """Without a word on examples, what answers as it is stands before what has to be fine-tuned."""
    ready = [one.ready for one in advised(task="classify").right]
    assert ready == sorted(ready, reverse=True) and True in ready and False in ready

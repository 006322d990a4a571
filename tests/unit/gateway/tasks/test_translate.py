"""/translate: codes of languages, who is asked, what is refused, and how long a translation takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from fake_translators import BABEL, FRENCH, GOOD, QUICK, TRANSLATED, catalog, manifest, manifests
from fakes import TERMS, FakeClock
from hypothesis import given
from hypothesis import strategies as st
from worlds import client_of, translating

from gateway.catalogs.catalog import Catalog
from gateway.forecasting.load import LoadTracker
from gateway.model.coming import Coming, ComingState
from gateway.model.deadline import Deadline
from gateway.model.errors import CheckpointUnavailable, InvalidRequest
from gateway.model.messages import Answer, Generation, InputReport, ReplicaTimings
from gateway.model.request import Request
from gateway.model.tier import Tier
from gateway.router import Router
from gateway.tasks.languages import language_of, meant
from gateway.tasks.translate import (
    TRANSLATE,
    Direction,
    Pair,
    TranslateParameters,
    Translation,
    TranslationModel,
    TranslatorManifest,
)

TEXT = "All is well."


def able(source: str | None, target: str | None) -> set[str]:
    """The checkpoints that can translate this."""
    assert TRANSLATE.able is not None
    return set(TRANSLATE.able(manifests(), TranslateParameters(source=source, target=target)))


@pytest.mark.parametrize("name", ["en", "eng", "EN", "en-US", "en_XX", "eng_Latn", "__en__", ">>eng<<"])
def test_codes_of_one_language_read_alike(name: str) -> None:
    """However a code is written, it means the same language."""
    assert getattr(language_of(name), "code", None) == "en"
    assert meant(name, ["fra_Latn", "eng_Latn"]) == "eng_Latn" and meant(name, ["fr_XX", "en_XX"]) == "en_XX"


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("zh", "zho_Hans"),
        ("zh-TW", "zho_Hant"),
        ("zho_Hant", "zho_Hant"),
        ("cmn_Hans", "zho_Hans"),
        ("pt_BR", "pt_BR"),
        ("pt", "pt_PT"),
        ("ger", "de_DE"),
        ("iw", "he_IL"),
        ("nb", "no_XX"),
        ("srp_Latn", None),
        ("klingon", None),
        ("", None),
    ],
)
def test_a_code_means_one_of_a_checkpoints_own(name: str, own: str | None) -> None:
    """Scripts must agree, regions are preferred, old and macro codes are known, and what is no code means nothing."""
    known = ["zho_Hans", "zho_Hant", "pt_PT", "pt_BR", "de_DE", "he_IL", "no_XX", "srp_Cyrl"]
    assert meant(name, known) == own


@given(name=st.text(max_size=30), own=st.lists(st.text(max_size=10), max_size=4))
def test_any_name_means_one_of_those_that_there_are_or_none(name: str, own: list[str]) -> None:
    """No name is a fault, and a name that stands there means itself."""
    found = meant(name, own)
    assert found is None or found in own
    assert found == name or name not in own


def test_only_checkpoints_that_speak_the_languages_are_asked() -> None:
    """Pairs and languages are read generously; one that must be told both languages is asked only where both are."""
    assert able("en", "de") == {QUICK, GOOD, BABEL} == able("eng_Latn", "deu")
    assert able(None, "de") == {QUICK, GOOD} and able("en_XX", "fr_XX") == {FRENCH}
    assert able("de", "zh") == able("deu_Latn", "zh-TW") == {BABEL}


@pytest.mark.parametrize(
    ("source", "target", "field", "must"),
    [
        ("en", "ja", "tgt_lang", "is translated by no checkpoint"),
        ("de", "fr", "tgt_lang", "is translated by no checkpoint"),
        ("fr", "en", "src_lang", "is translated by no checkpoint"),
        ("klingon", "de", "src_lang", "is translated by no checkpoint"),
        ("klingon", None, "src_lang", "is translated by no checkpoint"),
        (None, "ja", "tgt_lang", "is translated by no checkpoint"),
        (None, "zh", "src_lang", "must be given"),
        ("en", "eng_Latn", "tgt_lang", "must be another language than src_lang"),
        (None, None, "tgt_lang", "must be given"),
        ("en", None, "tgt_lang", "must be given"),
    ],
)
def test_what_no_checkpoint_translates_is_refused_with_what_there_is(
    source: str | None, target: str | None, field: str, must: str
) -> None:
    """The refusal names the field, and lists the pairs and the languages."""
    with pytest.raises(InvalidRequest) as refused:
        able(source, target)
    told: Any = refused.value.document()
    (error,) = told["errors"]
    assert error["field"] == f"parameters.{field}" and must in error["message"]
    assert all(name in error["message"] for name in ("en to de", "en to fr", "eng_Latn", "zho_Hant"))


def test_languages_may_be_absent_where_there_is_one_pair() -> None:
    """A gateway with checkpoints of one pair alone needs no languages."""
    assert TRANSLATE.able is not None
    assert set(TRANSLATE.able({QUICK: manifest(), GOOD: manifest()}, TranslateParameters())) == {QUICK, GOOD}


def of_pairs(*pairs: tuple[str, str]) -> TranslatorManifest:
    """A checkpoint of these pairs."""
    return manifest(pairs=tuple(Pair(source=source, target=target) for source, target in pairs))


def test_one_language_in_two_scripts_is_not_guessed() -> None:
    """Where nobody names a language its scripts are two answers; one code with a script and one without are one."""
    assert TRANSLATE.able is not None
    hans, hant = of_pairs(("en", "cmn_Hans")), of_pairs(("en", "cmn_Hant"))
    for source in ("en", None):
        with pytest.raises(InvalidRequest, match="tgt_lang: must be given"):
            TRANSLATE.able({QUICK: hans, GOOD: hant}, TranslateParameters(source=source))
    assert set(TRANSLATE.able({QUICK: hans, GOOD: hant}, TranslateParameters(target="zh"))) == {QUICK, GOOD}
    plain, latin = of_pairs(("en", "de")), of_pairs(("eng_Latn", "deu_Latn"))
    assert set(TRANSLATE.able({QUICK: plain, GOOD: latin}, TranslateParameters())) == {QUICK, GOOD}
    both = of_pairs(("en", "de"), ("fr", "de"))
    with pytest.raises(InvalidRequest, match="src_lang: must be given"):
        TRANSLATE.able({QUICK: both}, TranslateParameters())


@pytest.mark.parametrize(
    ("pairs", "source", "target", "found"),
    [
        ([("zho_Hans", "en"), ("zho_Hant", "de")], "zh", "de", [("zho_Hant", "de")]),
        ([("en", "de"), ("eng", "fr")], "en", "fr", [("eng", "fr")]),
        ([("fr", "zho_Hans"), ("en", "zho_Hant")], "en", "zh", [("en", "zho_Hant")]),
        ([("en", "de"), ("eng", "fr")], "en", None, [("en", "de"), ("eng", "fr")]),
        ([("en", "pt_PT"), ("en", "pt_BR")], "en", "pt_BR", [("en", "pt_BR")]),
        ([("en", "zho_Hans"), ("en", "zho_Hant")], None, "zh", [("en", "zho_Hans")]),
        ([("en", "de")], "fr", "de", []),
    ],
)
def test_both_codes_together_choose_a_pair(
    pairs: list[tuple[str, str]], source: str | None, target: str | None, found: list[tuple[str, str]]
) -> None:
    """A checkpoint may write one language in several ways: what is meant is a pair that it has."""
    assert [(one.source, one.target) for one in of_pairs(*pairs).directions(source, target)] == found


CODES = st.sampled_from(["en", "eng", "en_GB", "zho_Hans", "zho_Hant", "zh", "pt_BR", "pt"])


@given(pairs=st.lists(st.tuples(CODES, CODES), min_size=1, max_size=6), asked=st.tuples(CODES, CODES))
def test_a_pair_that_may_be_meant_is_found(pairs: list[tuple[str, str]], asked: tuple[str, str]) -> None:
    """A checkpoint with a pair of which each code alone may be meant translates it."""
    possible = [pair for pair in pairs if all(meant(code, [own]) for code, own in zip(asked, pair, strict=True))]
    found = [(one.source, one.target) for one in of_pairs(*pairs).directions(*asked)]
    assert bool(found) == bool(possible) and set(found) <= set(possible)


def test_a_direction_is_told_as_its_checkpoint_is() -> None:
    """A prefix, a token before the text, or tokens of both languages, the target's as the first that is written."""
    several = (Pair(source="en", target="deu", token_id=7), Pair(source="en", target="fra", prefix="to French: "))
    one = manifest(pairs=several)
    assert one.directions("en", "de") == [Direction("en", "deu", before=(7,))]
    assert one.directions(None, "fr") == [Direction("en", "fra", prefix="to French: ")]
    assert one.directions("de", None) == [] and len(one.directions(None, None)) == 2
    (told,) = manifests()[BABEL].directions("en", "zh")
    assert told == Direction("eng_Latn", "zho_Hans", before=(40,), first=42) and told.is_unspaced


@pytest.mark.parametrize(("headers", "checkpoint"), [({}, GOOD), ({"X-Checkpoint": QUICK}, QUICK)])
async def test_a_translation_is_answered_as_hugging_faces_api_does(headers: dict[str, str], checkpoint: str) -> None:
    """A text has a list with one translation; the best checkpoint that speaks the pair answers, or the one pinned."""
    told = translating()
    body = {"inputs": TEXT, "parameters": {"src_lang": "en", "tgt_lang": "de", "max_length": 9}}
    response = await client_of(told).post("/translate", json=body, headers=headers)
    assert response.json() == [{"translation_text": TRANSLATED}] and response.headers["X-Checkpoint"] == checkpoint
    sent = told.backend.dispatches[0].work.parameters
    assert sent == TranslateParameters(source="en", target="de", max_new_tokens=9)


@pytest.mark.parametrize(
    ("parameters", "headers", "field"),
    [
        ({"src_lang": "en", "tgt_lang": "ja"}, {}, "parameters.tgt_lang"),
        ({"src_lang": "en", "tgt_lang": "de"}, {"X-Checkpoint": FRENCH}, "parameters.tgt_lang"),
        ({"tgt_lang": "de", "min_length": 4}, {}, "parameters.min_length"),
        ({"tgt_lang": "d"}, {}, "parameters.tgt_lang"),
        ({"tgt_lang": "de", "do_sample": True}, {}, "parameters.do_sample"),
    ],
)
async def test_a_fault_is_named(parameters: dict[str, Any], headers: dict[str, str], field: str) -> None:
    """What cannot be done is a 422 that names the field, and nothing is run."""
    told = translating()
    response = await client_of(told).post(
        "/translate", json={"inputs": TEXT, "parameters": parameters}, headers=headers
    )
    assert response.status_code == 422 and not told.backend.dispatches
    assert field in [error["field"] for error in response.json()["errors"]]


async def test_a_route_says_who_is_unable() -> None:
    """Of checkpoints that were looked at, those that do not speak the pair are `unable`."""
    body = {"task": "translate", "inputs": TEXT, "parameters": {"src_lang": "de", "tgt_lang": "zh"}}
    told = (await client_of(translating()).post("/route", json=body)).json()
    verdicts = {one["checkpoint"]: one["verdict"] for one in told["candidates"]}
    assert verdicts == {GOOD: "unable", BABEL: "fits", FRENCH: "unable", QUICK: "unable"}


async def test_checkpoints_say_what_they_translate() -> None:
    """`/checkpoints` lists the pairs and the languages of each."""
    listed = (await client_of(translating()).get("/checkpoints")).json()["checkpoints"]
    found = {one["name"]: (one["pairs"], one["languages"]) for one in listed}
    assert found[FRENCH] == ([{"src_lang": "en", "tgt_lang": "fr"}], [])
    assert found[BABEL] == ([], ["deu_Latn", "eng_Latn", "zho_Hans", "zho_Hant"])


def test_a_language_that_may_still_come_is_a_503_and_one_that_will_not_a_422() -> None:
    """While a checkpoint is coming whose languages nobody knows yet, what no other translates is a 503."""
    known = {name: one for name, one in manifests().items() if name != BABEL}
    router = Router(catalog(), known, LoadTracker(), FakeClock())
    request = Request("translate", (TEXT,), TranslateParameters(source="de", target="zh"), TERMS, 0.0)
    deadline = router.deadline(request)
    with pytest.raises(CheckpointUnavailable) as refused:
        router.decide(request, deadline)
    assert refused.value.document()["checkpoints"] == [BABEL]
    router.told(Coming(BABEL, ComingState.FAILED))
    with pytest.raises(InvalidRequest):
        router.decide(request, deadline)
    router.join(BABEL, manifests()[BABEL])
    assert router.decide(request, deadline, every=True).terms.able == frozenset({BABEL})


def test_what_is_still_to_come_excuses_no_fault_of_the_request() -> None:
    """What must be given is a 422 whoever is coming; only those count that the other terms of the request allow."""
    known = {name: one for name, one in manifests().items() if name != BABEL}
    router = Router(catalog(), known, LoadTracker(), FakeClock())
    deadline = Deadline(0.0, 1.0)
    with pytest.raises(InvalidRequest, match="tgt_lang: must be given"):
        router.decide(Request("translate", (TEXT,), TranslateParameters(), TERMS, 0.0), deadline)
    entries = [
        one.model_copy(update={"domain": "law", "tier": Tier.BALANCED}) if one.name == BABEL else one
        for one in catalog().checkpoints
    ]
    lawyers = Router(Catalog(name="law", checkpoints=tuple(entries)), known, LoadTracker(), FakeClock())
    parameters = TranslateParameters(source="de", target="zh")
    refusals = {"law": CheckpointUnavailable, None: InvalidRequest}
    for domain, refusal in refusals.items():
        request = Request("translate", (TEXT,), parameters, replace(TERMS, domain=domain), 0.0)
        with pytest.raises(refusal):
            lawyers.decide(request, deadline)
    best = replace(TERMS, domain="law", min_tier=Tier.QUALITY)
    with pytest.raises(InvalidRequest):
        lawyers.decide(Request("translate", (TEXT,), parameters, best, 0.0), deadline)


def test_a_longer_text_takes_longer_and_a_limit_shortens_it() -> None:
    """Time grows with the sentences, and a limit of new tokens leaves out those that it excludes."""
    model = TranslationModel(manifest(max_new_tokens=200))
    short, long = (model.service_times_s((tokens,), TranslateParameters(), 1e9)[1] for tokens in (6, 240))
    assert long > 20 * short
    limited = model.service_times_s((240,), TranslateParameters(max_new_tokens=10), 1e9)[1]
    assert short < limited < long / 5


def test_more_time_gives_more_beams_of_those_asked_for() -> None:
    """With all the time in the world a search is as wide as asked for, and with none it is greedy."""
    model = TranslationModel(manifest(num_beams=4))
    (wide, least), (narrow, _) = (model.service_times_s((6,), TranslateParameters(), s) for s in (1e9, 0.0))
    assert narrow == least < wide


def test_a_model_learns_lengths_and_slowdown() -> None:
    """Answers teach how much is written, how long sentences are, and how fast the machine is."""
    model, before = TranslationModel(manifest()), TranslationModel(manifest())
    how = Generation("stop", 52, 50, 1, 40, 2, 0.5)
    answer = Answer((Translation("x"),), InputReport(20, 20, False), ReplicaTimings(0.0, 1.0, 1.0, 1), (how,))
    for _ in range(100):
        model.learn((20,), TranslateParameters(), answer)
    assert model.slowdown.value > 1.5
    model.forget()
    longer, usual = (one.service_times_s((20,), TranslateParameters(), 1e9)[1] for one in (model, before))
    assert longer > 2 * usual

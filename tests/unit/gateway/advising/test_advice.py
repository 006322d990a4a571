"""The adviser's laws: what was measured is used and said, and more of anything asked never makes a wrong one right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_translators
import pytest
import yaml
from fakes import catalog, manifest
from hypothesis import given
from hypothesis import strategies as st

from gateway.advising.advice import Adviser, UnknownSituation
from gateway.advising.candidates import Held, Offered
from gateway.advising.knowledge import Knowledge, knowledge
from gateway.advising.shape import TRAINER_BYTES, Shape
from gateway.advising.situation import Machine, Situation
from gateway.advising.timing import Basis, estimated, nearest, published
from gateway.catalogs.catalog import load_catalog, parse_catalog
from gateway.forecasting.forecaster import Forecaster
from gateway.tasks import service_time_model

MACHINE = Machine(2, 8e9)
TWICE = Shape(layers=4, width=64, inner=256, heads=4, vocabulary=1000, window=64)
ONCE = TWICE.model_copy(update={"layers": 2})


def adviser(served: bool = False, **held: Held) -> Adviser:
    """Return an adviser on the three classifiers of `fakes`, with these variants at hand."""
    return Adviser([Offered(catalog(), held, served)], MACHINE)


def situation(**asked: Any) -> Situation:
    """Return a situation of short texts to classify, with what is asked beside that."""
    return Situation(**{"task": "classify", "max_tokens": 32, "labelled": 10_000, **asked})


def test_a_measured_checkpoint_is_forecast_as_the_gateway_forecasts_it() -> None:
    """The latency is the forecaster's own, by the variant's profile, and says on which host that was measured."""
    variant = manifest("swift", 0.002)
    advice = adviser(swift=Held(variant)).advise(situation())
    (found,) = (one.latency for one in (*advice.right, *advice.wrong) if one.name == "swift")
    assert found is not None and found.measured and found.measured_on == "nothing"
    run_s = Forecaster(service_time_model(variant)).run_s(1, 32)
    assert found.core_ms == pytest.approx(run_s * 1000, abs=0.01)
    assert found.utilisation == pytest.approx(run_s / 2, abs=1e-3)


def test_a_translator_is_asked_for_as_many_tokens_as_are_to_be_written() -> None:
    """Of a translator that is at hand, a longer translation takes longer, by its own profile."""
    held = {name: Held(one) for name, one in fake_translators.manifests().items()}
    served = Adviser([Offered(fake_translators.catalog(), held)], MACHINE)

    def core_ms(tokens: int) -> float:
        advice = served.advise(Situation(task="translate", max_tokens=20, output_tokens=tokens))
        (found,) = (one.latency for one in (*advice.right, *advice.wrong) if one.name == fake_translators.GOOD)
        assert found is not None and found.measured
        return found.core_ms

    assert core_ms(5) == pytest.approx(20 + 5 * 10, rel=0.01)
    assert core_ms(20) == pytest.approx(20 + 20 * 10, rel=0.01)


def test_a_checkpoint_of_no_known_shape_is_neither_forecast_nor_sized() -> None:
    """What is not known is null and a caution, and never a reason to be out."""
    advice = adviser().advise(situation())
    unknown = next(one for one in advice.right if one.name == "grand")
    assert unknown.latency is None and unknown.memory.serve_mb is None and unknown.verdict == "caution"
    cautions = {reason.rule for reason in unknown.why if reason.verdict == "caution"}
    assert {"budget", "serving memory", "language", "length"} <= cautions


def test_resident_memory_is_taken_where_a_replica_runs() -> None:
    """A served checkpoint's memory is what its replica takes."""
    advice = adviser(served=True, swift=Held(manifest("swift", 0.002), resident_bytes=300_000_000)).advise(situation())
    found = next(one for one in advice.right if one.name == "swift")
    assert found.status == "served" and found.memory.measured and found.memory.serve_mb == 300.0


def test_estimates_begin_from_what_was_measured_here() -> None:
    """Once a checkpoint of a known shape was measured, public ones are estimated from it, on its host."""
    starter = load_catalog("starter")
    variant = manifest("minilm-sentiment", 0.020)
    offered = Offered(starter, {"minilm-sentiment": Held(variant)})
    advice = Adviser([offered], MACHINE).advise(situation(budget_ms=60_000))
    public = next(one for one in advice.right if one.name == "roberta-base")
    assert public.latency is not None and public.latency.basis == "minilm-sentiment"
    assert public.latency.measured_on == "nothing" and not public.latency.measured
    assert not any("nothing was measured" in sentence for sentence in advice.unknown)


def test_an_estimate_of_the_same_shape_is_the_measured_profile() -> None:
    """A shape estimated from itself takes what was measured; one of twice the layers takes twice as long."""
    basis = Basis.of(manifest("swift", 0.002), ONCE)
    asked = situation(max_tokens=64)
    measured_s = Forecaster(service_time_model(manifest("swift", 0.002))).run_s(1, 64)
    assert estimated(asked, ONCE, basis, 1.0).core_s == pytest.approx(measured_s)
    assert estimated(asked, TWICE, basis, 1.0).core_s == pytest.approx(2 * measured_s)


def test_the_nearest_measured_shape_is_taken() -> None:
    """Of several measured checkpoints the one of the likest operations is scaled."""
    one, two = Basis.of(manifest("one", 0.002), ONCE), Basis.of(manifest("two", 0.004), TWICE)
    assert nearest(TWICE, (one, two), False) is two and nearest(ONCE, (two, one), False) is one
    assert nearest(ONCE, (one, two), True) is None


def test_estimates_of_writers_agree_with_what_was_measured_of_another() -> None:
    """From DistilBART's figures, Pegasus-large's are estimated within a third of what docs/performance.md measured.

    There: 427 ms to read 512 tokens and 24.9 ms a token, so 1.9 s for 60 tokens.
    """
    known = knowledge()
    asked = Situation(task="summarize", max_tokens=512, output_tokens=60)
    shape = known.named("pegasus-large").shape
    basis = nearest(shape, published(known), True)
    assert basis is not None
    assert estimated(asked, shape, basis, 60.0).median_s == pytest.approx(0.427 + 60 * 0.0249, rel=1 / 3)


@given(st.floats(1, 1000), st.floats(0.1, 200), st.integers(1, 500), st.floats(0.1, 8))
def test_asking_more_never_makes_a_wrong_checkpoint_right(
    budget_ms: float, rate: float, tokens: int, memory_gb: float
) -> None:
    """A shorter budget, more load, longer texts or less memory leaves no checkpoint right that was wrong."""
    asked = {"budget_ms": budget_ms, "rate": rate, "max_tokens": tokens, "memory_gb": memory_gb}
    before = {one.name for one in STARTER.advise(situation(**asked)).right}
    harder = {"budget_ms": budget_ms / 2, "rate": 2 * rate, "max_tokens": 2 * tokens, "memory_gb": memory_gb / 2}
    for name, value in harder.items():
        after = {one.name for one in STARTER.advise(situation(**{**asked, name: value})).right}
        assert after <= before, name


STARTER = Adviser([Offered(load_catalog("starter"))], MACHINE)


def test_the_entry_of_a_catalog_is_its_own_and_that_of_a_public_one_is_valid() -> None:
    """Pasted into a catalog, the entry of each right checkpoint is valid: a public one names what fine-tuning gives."""
    advice = STARTER.advise(situation())
    for one in advice.right:
        assert one.entry is not None
        (fields,) = yaml.safe_load(one.entry)
        document = yaml.safe_dump({"name": "pasted", "checkpoints": [fields]})
        (pasted,) = parse_catalog(document.encode(), "pasted.yaml", Path("/nowhere")).checkpoints
        assert pasted.task == "classify" and pasted.licence == one.licence
        if one.status == "catalog":
            assert pasted == load_catalog("starter").by_name(one.name)


@pytest.mark.parametrize(
    ("asked", "field", "said"),
    [({"task": "sing"}, "task", "summarize"), ({"needs": "wings"}, "needs", "layout")],
)
def test_what_nothing_is_known_of_is_refused_by_its_name(asked: dict[str, str], field: str, said: str) -> None:
    """An unknown task or need is refused with the names that there are."""
    with pytest.raises(UnknownSituation) as refused:
        STARTER.advise(situation(**asked))
    assert refused.value.field == field and said in str(refused.value)


def test_an_unknown_machine_is_said_and_rules_nothing_out() -> None:
    """Without a machine, memory and processors are not known: that is said, and no checkpoint is out for it."""
    advice = Adviser([Offered(load_catalog("starter"))]).advise(situation(rate=1e5, train=True))
    assert any("memory_gb" in one for one in advice.unknown) and any("cores" in one for one in advice.unknown)
    ruled = {reason.rule for one in advice.wrong for reason in one.why if reason.verdict == "out"}
    assert not ruled & {"load", "serving memory", "training memory"}


def test_a_processor_without_int8_is_told() -> None:
    """Where int8 has no instructions of its own, estimates in int8 are said to be too low."""
    advice = Adviser(STARTER.offers, Machine(2, 8e9, dot_product=False)).advise(situation())
    assert any("int8" in sentence for sentence in advice.unknown)
    assert not any("int8" in sentence for sentence in STARTER.advise(situation()).unknown)


def test_fewer_texts_are_trained_at_a_time_where_sixteen_do_not_fit() -> None:
    """A memory that holds a checkpoint's state and few activations is enough, with a smaller batch."""
    shape = knowledge().named("distilbert-base-uncased").shape
    given_gb = (TRAINER_BYTES + 16 * shape.count + shape.kept_bytes(2, 512)) / 1e9
    advice = STARTER.advise(situation(train=True, max_tokens=512, memory_gb=given_gb, budget_ms=60_000))
    found = next(one for one in advice.right if one.name == "distilbert-base-uncased")
    assert found.memory.fine_tune_batch == 2


@pytest.mark.parametrize(
    ("part", "lacking"),
    [
        ({"sources": {}}, "sources lacks"),
        ({"families": {}}, "families lacks"),
        ({"tasks": {}}, "tasks lacks"),
        ({"checkpoints": []}, "checkpoints lacks"),
    ],
)
def test_knowledge_without_a_source_is_refused(part: dict[str, Any], lacking: str) -> None:
    """Every fact's source, family and task is in the file, or it is not read."""
    with pytest.raises(ValueError, match=lacking):
        Knowledge.model_validate({**knowledge().model_dump(), **part})


def test_a_location_is_of_one_checkpoint() -> None:
    """Two checkpoints that claim one source are refused."""
    document = knowledge().model_dump()
    twice = (document["checkpoints"][0], *document["checkpoints"])
    with pytest.raises(ValueError, match="several checkpoints have google-bert/bert-base-uncased"):
        Knowledge.model_validate({**document, "checkpoints": twice})


def test_packaged_catalogs_have_known_shapes() -> None:
    """The shape of every checkpoint of the packaged catalogs is known, to be estimated before it is made."""
    entries = [entry for name in ("starter", "hub") for entry in load_catalog(name).checkpoints]
    assert [entry.name for entry in entries if knowledge().of_source(entry.source) is None] == []


def test_windowed_tasks_take_texts_over_the_window_and_writers_do_not() -> None:
    """A text over the window is read in windows by `/tokens`, in pieces by `/summarize`, and refused by `/generate`."""
    served = Adviser([Offered(load_catalog("starter"), {})], Machine(cores=2.0, memory_bytes=8e9))

    def verdict(task: str, name: str) -> str:
        advice = served.advise(
            Situation(task=task, max_tokens=3000, domain="personal-data" if task == "tokens" else None)
        )
        (one,) = (one for one in (*advice.right, *advice.wrong) if one.name == name)
        return next(reason.verdict for reason in one.why if reason.rule == "length")

    assert verdict("tokens", "rampart") == "caution"
    assert verdict("generate", "smollm2") == "out"
    assert verdict("classify", "minilm-sentiment") == "out"


def test_the_usual_budget_is_that_of_the_catalog() -> None:
    """Where no budget is asked for, that of the served catalog holds, as it does for requests."""
    catalog = load_catalog("starter")
    short = catalog.model_copy(
        update={"defaults": catalog.defaults.model_copy(update={"budget_ms": {"classify": 1.0}})}
    )
    served = Adviser([Offered(short, {}, served=True)], Machine(cores=2.0, memory_bytes=8e9))
    advice = served.advise(Situation(task="classify"))
    said = [reason.text for one in advice.wrong for reason in one.why if reason.rule == "budget"]
    assert any("the budget of 1 ms" in text for text in said), said

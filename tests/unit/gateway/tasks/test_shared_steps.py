"""What summaries take whose texts share steps: more than alone, less than one after the other."""

from __future__ import annotations

import pytest
from fake_engines import writer_manifest
from fakes import cell
from hypothesis import given
from hypothesis import strategies as st

from gateway.model.profile import ProfileDocument
from gateway.tasks.decoding import MOST_TOGETHER, WritingTimes
from gateway.tasks.summarize import AbstractiveModel, SummarizeParameters

PLAIN = SummarizeParameters()
STEP_S, SOURCE_S = 0.01, 0.002


def profile(first_s: float, more_s: float) -> ProfileDocument:
    """A profile of so much for the first, and for each further one."""
    cells = tuple(cell(batch, tokens, first_s + (batch - 1) * more_s) for batch in (1, 2, 4, 8) for tokens in (16, 64))
    return ProfileDocument(threads=1, measured_on="nothing", cells=cells)


def model(*, sharing: bool = True) -> AbstractiveModel:
    """An encoder-decoder for which a row more costs a third of a step, and a text more a fifth of one besides."""
    made = writer_manifest(sharing=sharing).model_copy(
        update={
            "step_profile": profile(STEP_S, STEP_S / 3),
            "company_profile": profile(STEP_S, STEP_S / 3 + SOURCE_S) if sharing else None,
        }
    )
    return AbstractiveModel(made)


@given(st.integers(1, 8), st.integers(1, 4))
def test_each_further_text_costs_reading_its_source(texts: int, beams: int) -> None:
    """A step of several texts takes that of as many rows of one text, and one source more for each further text."""
    manifest = writer_manifest(sharing=True).model_copy(
        update={
            "step_profile": profile(STEP_S, STEP_S / 3),
            "company_profile": profile(STEP_S, STEP_S / 3 + SOURCE_S),
        }
    )
    times, rows = WritingTimes.of(manifest, manifest.company_profile), texts * beams
    expected = STEP_S * (1 + (rows - 1) / 3) + SOURCE_S * (texts - 1)
    assert times.shared_step_s(texts, rows, 32) == pytest.approx(expected)
    assert WritingTimes.of(manifest).shared_step_s(texts, rows, 32) == pytest.approx(times.steps.median_s(rows, 32))


def test_texts_that_share_steps_take_less_than_one_after_the_other() -> None:
    """Texts of one request are read in turn and written together; where steps are not shared they are done in turn."""
    alone, together = model(sharing=False), model()
    for available_s in (0.0, 60.0):
        one = together.service_times_s((20,), PLAIN, available_s)
        assert one == alone.service_times_s((20,), PLAIN, available_s)
        four = together.service_times_s((20,) * 4, PLAIN, available_s)
        in_turn = alone.service_times_s((20,) * 4, PLAIN, available_s)
        assert one[0] < four[0] < in_turn[0] and one[1] < four[1] < in_turn[1]
    assert together.run_s(4, 20) < alone.run_s(4, 20)
    assert (alone.max_batch, alone.joins) == (1, None) and together.max_batch == MOST_TOGETHER


@pytest.mark.parametrize("tokens", [20, 200])
def test_company_makes_a_text_slower(tokens: int) -> None:
    """The more texts are under way the longer a further one takes, in one piece or several, up to the most."""
    writing = model()
    least = [writing.service_times_s((tokens,), PLAIN, 0.0, companions)[1] for companions in range(MOST_TOGETHER + 2)]
    assert least[:MOST_TOGETHER] == sorted(set(least[:MOST_TOGETHER]))
    assert len(set(least[MOST_TOGETHER - 1 :])) == 1


def test_who_joins_holds_others_up_while_it_is_read() -> None:
    """Joining costs the others the reading of the text, and from then on slower steps."""
    writing = model()
    assert writing.joins is not None and writing.joins.reading_s(20) == pytest.approx(0.02)
    paces = [writing.joins.pace(texts) for texts in range(1, MOST_TOGETHER + 1)]
    assert paces[0] == 1 and paces == sorted(set(paces)) and paces[-1] < MOST_TOGETHER

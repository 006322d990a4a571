"""The service time of each kind of checkpoint: first by its profile, then ever nearer to what was observed."""

from __future__ import annotations

import pytest
from fake_summaries import OUTPUT_TOKENS, WINDOW, extractive_manifest, generation, seq2seq_manifest, summary
from fakes import cell, latency_profile, manifest

from gateway.model.messages import Answer, FinishReason
from gateway.model.profile import LatencyProfile, ProfileDocument
from gateway.tasks import service_time_model
from gateway.tasks.classify import ClassifyParameters
from gateway.tasks.service_time import LEAST_SLOWDOWN, MOST_SLOWDOWN, BatchedModel, Slowdown
from gateway.tasks.summarize import AbstractiveModel, ExtractiveModel, SummarizeParameters

NO_END_S = 600.0
"""More time than any plan uses."""

OVER = 2 * WINDOW + 10
"""More tokens than two windows hold."""

PLAIN = SummarizeParameters()
SHORT = 110
"""Tokens of a text that fits the window."""


def classifier(window_tokens: int = 64) -> BatchedModel:
    """Return a classifier's model that has learnt nothing yet."""
    return BatchedModel(latency_profile(0.010), window_tokens)


def reading(per_token_s: float = 0.001) -> ExtractiveModel:
    """Return an extractive model that has learnt nothing yet."""
    return ExtractiveModel(LatencyProfile.from_document(extractive_manifest("c", per_token_s).profile))


def writing(**rules: int) -> AbstractiveModel:
    """Return an abstractive model that has learnt nothing yet."""
    return AbstractiveModel(seq2seq_manifest(**rules))


def times_s(
    cost: ExtractiveModel | AbstractiveModel,
    *tokens: int,
    parameters: SummarizeParameters = PLAIN,
    available_s: float = NO_END_S,
) -> tuple[float, float]:
    """Return the service times of a request to summarise texts of these tokens: within the time, and the least."""
    return cost.service_times_s(tokens or (SHORT,), parameters, available_s)


def least_s(cost: ExtractiveModel | AbstractiveModel, *tokens: int, parameters: SummarizeParameters = PLAIN) -> float:
    """Return the least service time."""
    return times_s(cost, *tokens, parameters=parameters)[1]


def learn(
    cost: ExtractiveModel | AbstractiveModel, answer: Answer, *tokens: int, parameters: SummarizeParameters = PLAIN
) -> None:
    """Learn from the answer to a request to summarise texts of these tokens."""
    cost.learn(tokens or (SHORT,), parameters, answer)


def expected_tokens(cost: AbstractiveModel) -> float:
    """Return how many tokens a model expects, from its least time for a text of 110 tokens."""
    return (least_s(cost, SHORT) - 0.010 * 110 / 32) / (0.002 * 1.110)


def written(reason: FinishReason, tokens: int, max_new_tokens: int = 128, pieces: int = 1) -> Answer:
    """Return a summary of known length and unknown steps."""
    return summary(generation(reason, tokens, steps=0, max_new_tokens=max_new_tokens, pieces=pieces), tokens=110)


def test_many_inputs_take_longer_than_one_and_less_than_their_sum() -> None:
    """The texts of one request share runs with those of like length, so they take less time than one by one."""
    cells = {(1, 16): 0.010, (1, 64): 0.04, (8, 16): 0.040, (8, 64): 0.160}
    made = tuple(cell(batch, tokens, p50_s) for (batch, tokens), p50_s in cells.items())
    grid = LatencyProfile.from_document(ProfileDocument(threads=1, measured_on="nothing", cells=made))
    new = BatchedModel(grid, 64)

    def scoring_s(*tokens: int) -> float:
        return new.service_times_s(tokens, ClassifyParameters(), 0.0)[0]

    assert scoring_s(20) < scoring_s(*[20] * 8) < 8 * scoring_s(20)
    assert scoring_s(*[20] * 9) > scoring_s(*[20] * 8)
    mixed = (20, 900) * 8
    assert scoring_s(*mixed) == pytest.approx(scoring_s(*[20] * 8) + scoring_s(*[900] * 8))


def test_each_kind_has_its_own_cost() -> None:
    """Classifiers, extractive and abstractive checkpoints each have their own model of the service time."""
    assert isinstance(service_time_model(manifest("c", 0.010)), BatchedModel)
    assert isinstance(service_time_model(extractive_manifest("c", 0.001)), ExtractiveModel)
    assert isinstance(service_time_model(seq2seq_manifest()), AbstractiveModel)


def test_only_writing_uses_the_time_that_it_is_given() -> None:
    """Only writing takes longer where there is more time, up to the widest plan."""
    scoring = [
        classifier().service_times_s((20,), ClassifyParameters(), available_s) for available_s in (0.0, NO_END_S)
    ]
    assert scoring[0] == scoring[1]
    assert times_s(reading(), available_s=0.0) == times_s(reading())
    fully = [times_s(writing(), available_s=available_s)[0] for available_s in (0.0, 0.2, 0.22, 0.25, NO_END_S)]
    assert fully == sorted(fully) and len(set(fully)) > 2
    least = {times_s(writing(), available_s=available_s)[1] for available_s in (0.0, 0.2, NO_END_S)}
    assert least == {least_s(writing())}


def test_every_text_is_read() -> None:
    """An extractive checkpoint takes longer for a longer text, and twice as long for two texts."""
    assert least_s(reading(), SHORT, SHORT) == pytest.approx(2 * least_s(reading(), SHORT))
    assert least_s(reading(), 10 * SHORT) > 5 * least_s(reading(), SHORT)


@pytest.mark.parametrize("truncation", ["longest_first", "error"])
def test_only_chunking_reads_beyond_the_window(truncation: str) -> None:
    """A text longer than the window costs as much as the window, unless it is read in pieces."""
    head = SummarizeParameters(truncation=truncation)  # type: ignore[arg-type]  # the table's texts are of that kind
    cut = least_s(writing(), OVER, parameters=head)
    assert cut == least_s(writing(), 100 * OVER, parameters=head)
    assert least_s(writing(), OVER) > 2 * cut
    assert least_s(writing(), 3 * OVER) > 2 * least_s(writing(), OVER)


def test_pieces_are_widened_like_a_text_of_its_own() -> None:
    """The pieces of a long text are written as wide as their share of the time allows."""
    whole, _ = times_s(writing(), SHORT)
    fully, least = times_s(writing(), OVER)
    assert fully > 2 * whole
    one_beam = SummarizeParameters(num_beams=1)
    assert times_s(writing(), OVER, parameters=one_beam) == pytest.approx((least, least))


def test_what_the_client_allows_at_most_costs_less() -> None:
    """Fewer tokens or beams than the checkpoint's own cost less; more cost no more than its own."""
    own = times_s(writing())
    short = times_s(writing(), parameters=SummarizeParameters(max_new_tokens=10))
    assert short[0] < own[0] and short[1] < own[1]
    narrow = times_s(writing(), parameters=SummarizeParameters(num_beams=1))
    assert narrow[0] < own[0] and narrow[1] == own[1]
    lavish = SummarizeParameters(max_new_tokens=4096)
    assert times_s(writing(), parameters=lavish) == own


def test_what_the_client_wants_at_least_costs_more() -> None:
    """A minimum of tokens costs more if it is above the expected length, up to the most that may be written."""
    own = least_s(writing())
    more = [least_s(writing(), parameters=SummarizeParameters(min_new_tokens=n)) for n in (0, 10, 80, 128, 4096)]
    assert more[0] == more[1] == own < more[2] < more[3] == more[4]


def test_no_least_of_the_client_lifts_that_of_the_checkpoint() -> None:
    """A client's minimum of 0 tokens replaces the checkpoint's own minimum."""
    own = least_s(writing(min_new_tokens=100))
    assert least_s(writing(min_new_tokens=100), parameters=SummarizeParameters(min_new_tokens=0)) < own


@pytest.mark.parametrize("tokens", [5, 20, 70])
def test_the_length_of_summaries_is_learnt(tokens: int) -> None:
    """The expected length approaches that of the recent summaries, whether they are longer or shorter."""
    seen = writing()
    assert expected_tokens(seen) == pytest.approx(OUTPUT_TOKENS)
    for _ in range(200):
        learn(seen, written("stop", tokens))
    assert expected_tokens(seen) == pytest.approx(tokens, rel=0.02)


@pytest.mark.parametrize("reason", ["length", "deadline"])
def test_a_cut_summary_is_no_shorter_than_expected(reason: FinishReason) -> None:
    """A summary that was cut can raise the expected length and never lowers it."""
    seen = writing()
    learn(seen, written(reason, 5))
    assert expected_tokens(seen) == pytest.approx(OUTPUT_TOKENS)
    learn(seen, written(reason, 90))
    assert expected_tokens(seen) > OUTPUT_TOKENS + 1


def test_summaries_without_budget_say_nothing_of_length() -> None:
    """Summaries with little time to write do not change the expected length: only short ones end by themselves."""
    seen = writing()
    learn(seen, written("stop", 5, max_new_tokens=30))
    learn(seen, written("length", 59, max_new_tokens=59))
    learn(seen, written("stop", 5, pieces=3))
    learn(seen, written("stop", 120), parameters=SummarizeParameters(min_new_tokens=120))
    assert expected_tokens(seen) == pytest.approx(OUTPUT_TOKENS)
    learn(seen, written("stop", 5, max_new_tokens=60))
    assert expected_tokens(seen) < OUTPUT_TOKENS - 1


def test_a_checkpoint_that_may_write_little_is_learnt_from_all_the_same() -> None:
    """A checkpoint whose own limit is short learns from summaries at that limit."""
    seen = writing(max_new_tokens=45)
    learn(seen, written("stop", 5, max_new_tokens=45))
    assert expected_tokens(seen) < OUTPUT_TOKENS - 1


@pytest.mark.parametrize("times", [0.5, 3.0])
def test_the_pace_of_writing_is_learnt(times: float) -> None:
    """The slowdown of writing is learnt."""
    seen = writing()
    before = least_s(seen)
    for _ in range(200):
        profiled_s = 0.010 * 110 / 32 + 40 * 0.002 * 1.110
        answer = summary(generation(tokens=40), tokens=110, service_time_s=times * profiled_s)
        learn(seen, answer)
    assert least_s(seen) == pytest.approx(times * before, rel=0.02)


@pytest.mark.parametrize("times", [0.5, 3.0])
def test_the_pace_of_reading_is_learnt(times: float) -> None:
    """The slowdown of an extractive checkpoint is learnt from the tokens that it read."""
    seen = reading()
    before = least_s(seen, 10 * SHORT)
    for _ in range(200):
        answer = summary(generation("deadline"), tokens=1082, kept=500, service_time_s=times * 0.500)
        learn(seen, answer, 10 * SHORT)
    assert least_s(seen, 10 * SHORT) == pytest.approx(times * before, rel=0.02)


def test_the_pace_is_not_learnt_from_what_was_not_run() -> None:
    """An answer without a single step teaches no slowdown."""
    for cost in (reading(), writing()):
        before = least_s(cost)
        nothing = generation("deadline", tokens=0, steps=0, lead=True)
        learn(cost, summary(nothing, tokens=110, kept=0, service_time_s=0.0))
        assert least_s(cost) == before


def test_the_pace_of_writing_is_learnt_from_one_text_in_one_piece() -> None:
    """The slowdown of writing is learnt only from one text in one piece; for others the steps of each are unknown."""
    seen = writing()
    before = least_s(seen)
    slow = generation("length", tokens=40)
    learn(seen, summary(slow, slow, service_time_s=60.0, tokens=50, kept=49), SHORT, SHORT)
    learn(seen, summary(generation("length", tokens=40, pieces=3), service_time_s=60.0, kept=1), OVER)
    assert least_s(seen) == before


def test_a_pace_is_an_average_within_bounds() -> None:
    """A slowdown is a weighted average; an outlier moves it no further than its bound, and a time of 0 s not at all."""
    slowdown = Slowdown(0.5)
    assert slowdown.value == 1.0
    slowdown.learn(2.0, 1.0)
    assert slowdown.value == 1.5
    slowdown.learn(3.0, 0.0)
    assert slowdown.value == 1.5
    slowdown.learn(1e9, 1.0)
    assert slowdown.value == (1.5 + MOST_SLOWDOWN) / 2
    for _ in range(60):
        slowdown.learn(0.0, 1.0)
    assert slowdown.value == pytest.approx(LEAST_SLOWDOWN)

"""The service time of each kind of checkpoint: first by its profile, then ever nearer to what was observed."""

from __future__ import annotations

import pytest
from fake_summaries import OUTPUT_TOKENS, WINDOW, extractive_manifest, generation, seq2seq_manifest, summary
from fakes import cell, latency_profile, manifest

from gateway.model.messages import Answer, FinishReason
from gateway.model.profile import LatencyProfile, ProfileDocument
from gateway.model.request import RequestShape
from gateway.tasks import service_time_model
from gateway.tasks.classify import BatchedModel, ClassifyParameters
from gateway.tasks.service_time import LEAST_SLOWDOWN, MOST_SLOWDOWN, Slowdown, TokenRate
from gateway.tasks.summarize import AbstractiveModel, ExtractiveModel, SummarizeParameters

NO_END_S = 600.0
"""More time than any plan uses."""

OVER = 8 * WINDOW
"""More characters than two windows hold."""


def classifier(window_tokens: int = 64) -> BatchedModel:
    """Return a classifier's model that has learnt nothing yet."""
    return BatchedModel(latency_profile(0.010), window_tokens)


def reading(per_token_s: float = 0.001) -> ExtractiveModel:
    """Return an extractive model that has learnt nothing yet."""
    return ExtractiveModel(LatencyProfile.from_document(extractive_manifest("c", per_token_s).profile))


def writing(**rules: int) -> AbstractiveModel:
    """Return an abstractive model that has learnt nothing yet."""
    return AbstractiveModel(seq2seq_manifest(**rules))


def asked(*characters: int, parameters: SummarizeParameters | None = None) -> RequestShape:
    """Return the shape of a request to summarise texts of these lengths, in characters."""
    return RequestShape(characters or (400,), parameters or SummarizeParameters())


def least_s(cost: ExtractiveModel | AbstractiveModel, of: RequestShape) -> float:
    """Return the least service time."""
    return cost.service_times_s(of, NO_END_S)[1]


def expected_tokens(cost: AbstractiveModel) -> float:
    """Return how many tokens a model expects, from its least time for a text of 110 tokens."""
    return (least_s(cost, asked(400)) - 0.010 * 110 / 32) / (0.002 * 1.110)


def written(reason: FinishReason, tokens: int, max_new_tokens: int = 128, pieces: int = 1) -> Answer:
    """Return a summary of known length and unknown steps."""
    return summary(generation(reason, tokens, steps=0, max_new_tokens=max_new_tokens, pieces=pieces), tokens=110)


def test_many_inputs_take_longer_than_one_and_less_than_their_sum() -> None:
    """The texts of one request are batched by length bucket, so they take less time than one after the other."""
    cells = {(1, 16): 0.010, (1, 64): 0.04, (8, 16): 0.040, (8, 64): 0.160}
    made = tuple(cell(batch, tokens, p50_s) for (batch, tokens), p50_s in cells.items())
    grid = LatencyProfile.from_document(ProfileDocument(threads=1, measured_on="nothing", cells=made))
    new = BatchedModel(grid, 64)
    assert new.service_time_s((20,)) < new.service_time_s((20,) * 8) < 8 * new.service_time_s((20,))
    assert new.service_time_s((20,) * 9) > new.service_time_s((20,) * 8)
    mixed = (20, 900) * 8
    assert new.service_time_s(mixed) == pytest.approx(new.service_time_s((20,) * 8) + new.service_time_s((900,) * 8))


def test_tokens_stay_within_the_window() -> None:
    """A forecast never has more tokens than the checkpoint's window."""
    new = classifier(window_tokens=64)
    assert new.tokens(10**6) == 64
    assert 0 < new.tokens(0) <= new.tokens(10) <= new.tokens(100)


def test_the_forecast_of_tokens_follows_the_texts() -> None:
    """The forecast of tokens approaches that of the recent texts, whether they have more tokens or fewer."""
    for per_character in (0.1, 0.5, 1.0):
        new = classifier(window_tokens=10_000)
        for _ in range(200):
            new.learn_tokens((1000,), round(1000 * per_character))
        assert new.tokens(1000) == pytest.approx(1000 * per_character, rel=0.05)


def test_nothing_is_learnt_from_nothing() -> None:
    """Empty texts and texts of special tokens only do not change the forecast of tokens."""
    rate = TokenRate()
    before = rate.tokens(100)
    rate.learn((0,), 5)
    rate.learn((5,), 2)
    rate.learn((), 0)
    assert rate.tokens(100) == before


def test_special_tokens_are_counted_once() -> None:
    """Special tokens count once for each text, so short texts do not raise the forecast for long ones."""
    one, many = classifier(window_tokens=512), classifier(window_tokens=512)
    for _ in range(200):
        one.learn_tokens((4,), 3)
        many.learn_tokens((4,) * 10, 30)
    assert one.tokens(4) == many.tokens(4) == pytest.approx(3, abs=1)
    assert one.tokens(1000) == many.tokens(1000) == pytest.approx(252, abs=1)


def test_each_kind_has_its_own_cost() -> None:
    """Classifiers, extractive and abstractive checkpoints each have their own model of the service time."""
    assert isinstance(service_time_model(manifest("c", 0.010)), BatchedModel)
    assert isinstance(service_time_model(extractive_manifest("c", 0.001)), ExtractiveModel)
    assert isinstance(service_time_model(seq2seq_manifest()), AbstractiveModel)


def test_only_writing_uses_the_time_that_it_is_given() -> None:
    """Only writing takes longer where there is more time, up to the widest plan."""
    scoring = RequestShape((20,), ClassifyParameters())
    assert classifier().service_times_s(scoring, 0.0) == classifier().service_times_s(scoring, NO_END_S)
    assert reading().service_times_s(asked(), 0.0) == reading().service_times_s(asked(), NO_END_S)
    fully = [writing().service_times_s(asked(), available_s)[0] for available_s in (0.0, 0.2, 0.22, 0.25, NO_END_S)]
    assert fully == sorted(fully) and len(set(fully)) > 2
    assert {writing().service_times_s(asked(), available_s)[1] for available_s in (0.0, 0.2, NO_END_S)} == {
        least_s(writing(), asked())
    }


def test_every_text_is_read() -> None:
    """An extractive checkpoint takes longer for a longer text, and twice as long for two texts."""
    assert least_s(reading(), asked(400, 400)) == pytest.approx(2 * least_s(reading(), asked(400)))
    assert least_s(reading(), asked(4000)) > 5 * least_s(reading(), asked(400))


@pytest.mark.parametrize("truncation", ["longest_first", "error"])
def test_only_chunking_reads_beyond_the_window(truncation: str) -> None:
    """A text longer than the window costs as much as the window, unless it is read in pieces."""
    head = SummarizeParameters(truncation=truncation)  # type: ignore[arg-type]  # the table's texts are of that kind
    cut = least_s(writing(), asked(OVER, parameters=head))
    assert cut == least_s(writing(), asked(100 * OVER, parameters=head))
    assert least_s(writing(), asked(OVER)) > 2 * cut
    assert least_s(writing(), asked(3 * OVER)) > 2 * least_s(writing(), asked(OVER))


def test_pieces_are_widened_like_a_text_of_its_own() -> None:
    """The pieces of a long text are written as wide as their share of the time allows."""
    whole, _ = writing().service_times_s(asked(400), NO_END_S)
    fully, least = writing().service_times_s(asked(OVER), NO_END_S)
    assert fully > 2 * whole
    one_beam = SummarizeParameters(num_beams=1)
    assert writing().service_times_s(asked(OVER, parameters=one_beam), NO_END_S) == pytest.approx((least, least))


def test_what_the_client_allows_at_most_costs_less() -> None:
    """Fewer tokens or beams than the checkpoint's own cost less; more cost no more than its own."""
    own = writing().service_times_s(asked(), NO_END_S)
    short = writing().service_times_s(asked(parameters=SummarizeParameters(max_new_tokens=10)), NO_END_S)
    assert short[0] < own[0] and short[1] < own[1]
    narrow = writing().service_times_s(asked(parameters=SummarizeParameters(num_beams=1)), NO_END_S)
    assert narrow[0] < own[0] and narrow[1] == own[1]
    lavish = SummarizeParameters(max_new_tokens=4096)
    assert writing().service_times_s(asked(parameters=lavish), NO_END_S) == own


def test_what_the_client_wants_at_least_costs_more() -> None:
    """A minimum of tokens costs more if it is above the expected length, up to the most that may be written."""
    own = least_s(writing(), asked())
    more = [least_s(writing(), asked(parameters=SummarizeParameters(min_new_tokens=n))) for n in (0, 10, 80, 128, 4096)]
    assert more[0] == more[1] == own < more[2] < more[3] == more[4]


def test_no_least_of_the_client_lifts_that_of_the_checkpoint() -> None:
    """A client's minimum of 0 tokens replaces the checkpoint's own minimum."""
    own = least_s(writing(min_new_tokens=100), asked())
    assert least_s(writing(min_new_tokens=100), asked(parameters=SummarizeParameters(min_new_tokens=0))) < own


@pytest.mark.parametrize("tokens", [5, 20, 70])
def test_the_length_of_summaries_is_learnt(tokens: int) -> None:
    """The expected length approaches that of the recent summaries, whether they are longer or shorter."""
    seen = writing()
    assert expected_tokens(seen) == pytest.approx(OUTPUT_TOKENS)
    for _ in range(200):
        seen.learn(asked(400), written("stop", tokens))
    assert expected_tokens(seen) == pytest.approx(tokens, rel=0.02)


@pytest.mark.parametrize("reason", ["length", "deadline"])
def test_a_cut_summary_is_no_shorter_than_expected(reason: FinishReason) -> None:
    """A summary that was cut can raise the expected length and never lowers it."""
    seen = writing()
    seen.learn(asked(), written(reason, 5))
    assert expected_tokens(seen) == pytest.approx(OUTPUT_TOKENS)
    seen.learn(asked(), written(reason, 90))
    assert expected_tokens(seen) > OUTPUT_TOKENS + 1


def test_summaries_without_budget_say_nothing_of_length() -> None:
    """Summaries with little time to write do not change the expected length: only short ones end by themselves."""
    seen = writing()
    seen.learn(asked(), written("stop", 5, max_new_tokens=30))
    seen.learn(asked(), written("length", 59, max_new_tokens=59))
    seen.learn(asked(), written("stop", 5, pieces=3))
    seen.learn(asked(parameters=SummarizeParameters(min_new_tokens=120)), written("stop", 120))
    assert expected_tokens(seen) == pytest.approx(OUTPUT_TOKENS)
    seen.learn(asked(), written("stop", 5, max_new_tokens=60))
    assert expected_tokens(seen) < OUTPUT_TOKENS - 1


def test_a_checkpoint_that_may_write_little_is_learnt_from_all_the_same() -> None:
    """A checkpoint whose own limit is short learns from summaries at that limit."""
    seen = writing(max_new_tokens=45)
    seen.learn(asked(), written("stop", 5, max_new_tokens=45))
    assert expected_tokens(seen) < OUTPUT_TOKENS - 1


@pytest.mark.parametrize("times", [0.5, 3.0])
def test_the_pace_of_writing_is_learnt(times: float) -> None:
    """The slowdown of writing is learnt."""
    seen, of = writing(), asked()
    before = least_s(seen, of)
    for _ in range(200):
        profiled_s = 0.010 * 110 / 32 + 40 * 0.002 * 1.110
        answer = summary(generation(tokens=40), tokens=110, service_time_s=times * profiled_s)
        seen.learn(of, answer)
    assert least_s(seen, of) == pytest.approx(times * before, rel=0.02)


@pytest.mark.parametrize("times", [0.5, 3.0])
def test_the_pace_of_reading_is_learnt(times: float) -> None:
    """The slowdown of an extractive checkpoint is learnt from the tokens that it read."""
    seen, of = reading(), asked(4000)
    before = least_s(seen, of)
    for _ in range(200):
        seen.learn(of, summary(generation("deadline"), tokens=1082, kept=500, service_time_s=times * 0.500))
    assert least_s(seen, of) == pytest.approx(times * before, rel=0.02)


def test_the_pace_is_not_learnt_from_what_was_not_run() -> None:
    """An answer without a single step teaches no slowdown."""
    for cost in (reading(), writing()):
        before = least_s(cost, asked())
        nothing = generation("deadline", tokens=0, steps=0, lead=True)
        cost.learn(asked(), summary(nothing, tokens=110, kept=0, service_time_s=0.0))
        assert least_s(cost, asked()) == before


def test_the_pace_of_writing_is_learnt_from_one_text_in_one_piece() -> None:
    """The slowdown of writing is learnt only from one text in one piece; for others the steps of each are unknown."""
    seen = writing()
    before = least_s(seen, asked())
    slow = generation("length", tokens=40)
    seen.learn(asked(400, 400), summary(slow, slow, service_time_s=60.0, tokens=50, kept=49))
    seen.learn(asked(OVER), summary(generation("length", tokens=40, pieces=3), service_time_s=60.0, kept=1))
    assert least_s(seen, asked()) == before


def test_tokens_are_learnt_from_texts_that_were_taken_whole() -> None:
    """The number of tokens is learnt only from texts that were not cut."""
    for cost in (reading(), writing()):
        before = least_s(cost, asked())
        cost.learn(asked(), summary(generation("stop", pieces=2, steps=0), tokens=400, kept=1, service_time_s=0.004))
        after_cut = least_s(cost, asked())
        cost.learn(asked(), summary(generation("stop", pieces=2, steps=0), tokens=400, service_time_s=0.4))
        assert least_s(cost, asked()) > after_cut
        assert isinstance(cost, ExtractiveModel) or after_cut == before


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

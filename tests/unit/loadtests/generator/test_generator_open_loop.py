"""The generator over real sockets: every call is sent once and on time, and a refused one may be tried once more."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, repeat
from time import perf_counter

import pytest
from small_gateway import NEVER, Asked, SmallGateway, Told, answer, problem
from virtual_time import loop_clock

from loadtests.generator.calls import Call, held_out
from loadtests.generator.ceiling import offer, parrot
from loadtests.generator.open_loop import GeneratorFailed, Order, clients_of, fired, generating
from loadtests.generator.results import Prediction, Result
from loadtests.workload.arrivals import Fate

STRICT = {"X-SLA-Mode": "strict", "X-Latency-SLA-Ms": "200.000"}


def call(at: int, task: str = "classify", budget_s: float = 0.2, shadowed: bool = False, gap_s: float = 0.0) -> Call:
    """A call due at its own number times the gap."""
    return Call(at, 0, at * gap_s, task, budget_s, f"{at}".encode(), STRICT, shadowed)


def by_number(*told: Told) -> Callable[[Asked], Told]:
    """Answers each request with the reply whose number is its body."""
    return lambda asked: told[int(asked.body)]


async def results(gateway: SmallGateway, calls: Sequence[Call], within_s: float = 5.0) -> list[Result]:
    """The results of the calls, in virtual time."""
    tasks = sorted({one.task for one in calls})
    async with gateway.serving() as url, clients_of(url, tasks, within_s) as clients:
        return await fired(clients, calls, loop_clock())


@pytest.mark.virtual_time
async def test_every_call_is_sent_once_to_its_tasks_endpoint() -> None:
    """Every call is sent once to its task's endpoint, and results come in the order in which calls were due."""
    gateway = SmallGateway(lambda asked: answer())
    calls = [call(at, "summarize" if at % 3 == 0 else "classify") for at in range(30)]
    found = await results(gateway, calls)
    assert [one.sequence for one in found] == list(range(30)) and {one.fate for one in found} == {Fate.IN_TIME}
    asked = {int(one.body): one for one in gateway.asked}
    assert len(gateway.asked) == len(asked) == 30
    assert all(asked[at].path == ("/summarize" if at % 3 == 0 else "/classify") for at in range(30))
    assert all(one.headers["x-sla-mode"] == "strict" for one in gateway.asked)
    assert all(one.headers["content-type"] == "application/json" for one in gateway.asked)


@pytest.mark.virtual_time
async def test_arrivals_do_not_wait_for_answers_and_latency_counts_from_when_they_were_due() -> None:
    """Arrivals do not wait for answers, however slow the server, and latency counts from the intended send time."""
    gateway = SmallGateway(lambda asked: answer(after_s=0.3))
    found = await results(gateway, [call(at) for at in range(20)])
    assert gateway.connections == 20 and {one.fate for one in found} == {Fate.LATE}
    assert [one.latency_s for one in found] == pytest.approx([0.3] * 20) and {one.lag_s for one in found} == {0.0}
    one_by_one = SmallGateway(lambda asked: answer())
    async with one_by_one.serving() as url, clients_of(url, ["classify"], 5.0) as clients:
        for _ in range(20):
            await fired(clients, [call(0)], loop_clock())
    assert len(one_by_one.asked) == 20 and one_by_one.connections == 1


@pytest.mark.virtual_time
async def test_a_clock_that_was_stopped_shows_as_lag_and_as_latency() -> None:
    """A delay of the generator itself counts in the latency of the request, and shows as lag."""
    gateway = SmallGateway(lambda asked: answer())
    calls = [call(0), replace(call(1), due_s=0.6), replace(call(2), due_s=1.0)]
    reads = chain([0.0], repeat(1.0))  # the start, and from then on a second later
    async with gateway.serving() as url, clients_of(url, ["classify"], 5.0) as clients:
        found = await fired(clients, calls, lambda: next(reads))
    assert [one.lag_s for one in found] == pytest.approx([1.0, 0.4, 0.0])
    assert [one.latency_s for one in found] == pytest.approx([1.0, 0.4, 0.0])


@pytest.mark.virtual_time
async def test_ends_are_told_apart() -> None:
    """Only a rejection before any work is a refusal; expired, broken and hanging requests have failed, with reasons."""
    gateway = SmallGateway(
        by_number(
            answer(),
            answer(after_s=0.25),
            problem(429, "overloaded"),
            problem(422, "budget_infeasible"),
            problem(504, "deadline_exceeded"),
            problem(422, "invalid_request"),
            problem(500, "inference_failed"),
            Told(503, {}, b"<html>"),
            Told(None),
            answer(after_s=2.0),
        )
    )
    found = await results(gateway, [call(at) for at in range(10)], within_s=0.5)
    assert [(one.fate, one.detail) for one in found] == [
        (Fate.IN_TIME, ""),
        (Fate.LATE, ""),
        (Fate.REFUSED, "overloaded"),
        (Fate.REFUSED, "budget_infeasible"),
        (Fate.FAILED, "504 deadline_exceeded"),
        (Fate.FAILED, "422 invalid_request"),
        (Fate.FAILED, "500 inference_failed"),
        (Fate.FAILED, "503 without a code"),
        (Fate.FAILED, found[8].detail),
        (Fate.FAILED, "hung"),
    ]
    assert found[8].detail in ("ServerDisconnectedError", "ClientOSError")


@pytest.mark.virtual_time
async def test_what_the_gateway_foretold_is_kept() -> None:
    """A result keeps what the gateway predicted: checkpoint, tier, reason, both forecasts and its total, in seconds."""
    told = answer(
        "grand",
        X_Predicted_Latency_Ms="12.5",
        X_Forecast_Quantile_Ms="20",
        X_Finish_Reason="deadline",
        Server_Timing='route;dur=0.1, infer;dur=7;desc="6 steps", total;dur=9.75, predicted;dur=12.5',
    )
    (found,) = await results(SmallGateway(lambda asked: told), [call(0)])
    assert found.prediction == Prediction("grand", "realtime", "fits", 0.0125, 0.020, 0.00975, "deadline")
    (refused,) = await results(SmallGateway(lambda asked: problem(429, "overloaded")), [call(0)])
    assert refused.prediction is None


def then(second: Told) -> Callable[[Asked], Told]:
    """Refuses strict requests after 20 ms, and gives `second` to others."""

    def behave(asked: Asked) -> Told:
        return problem(429, "overloaded", 0.02) if asked.headers["x-sla-mode"] == "strict" else second

    return behave


@pytest.mark.virtual_time
async def test_a_refused_call_is_tried_once_more_with_what_is_left_of_its_budget() -> None:
    """A refused call marked for it is sent again at once as best effort, with what is left of its budget."""
    gateway = SmallGateway(then(answer()))
    shadowed, plain = await results(gateway, [call(0, shadowed=True), call(1)])
    again = [one for one in gateway.asked if one.headers["x-sla-mode"] == "best-effort"]
    assert [one.body for one in again] == [b"0"]
    assert float(again[0].headers["x-latency-sla-ms"]) == pytest.approx(180)
    assert (shadowed.fate, plain.fate, plain.shadow) == (Fate.REFUSED, Fate.REFUSED, None)
    assert shadowed.shadow is not None and shadowed.shadow.fate is Fate.IN_TIME
    assert shadowed.latency_s == shadowed.shadow.latency_s == pytest.approx(0.02)


@pytest.mark.virtual_time
async def test_a_shadow_is_in_time_by_the_first_tries_clock() -> None:
    """A second try is in time by the budget of the first: the time until the refusal counts."""
    (late,) = await results(SmallGateway(then(answer(after_s=0.19))), [call(0, shadowed=True)])
    assert late.shadow is not None and late.shadow.fate is Fate.LATE
    assert late.shadow.latency_s == pytest.approx(0.21)
    (failed,) = await results(SmallGateway(then(problem(500, "inference_failed"))), [call(0, shadowed=True)])
    assert failed.shadow is not None and failed.shadow.fate is Fate.FAILED


@pytest.mark.virtual_time
async def test_a_refusal_that_used_up_the_budget_is_not_tried_again() -> None:
    """Only refusals are tried again, and only while some budget is left."""
    gateway = SmallGateway(then(answer()))
    (spent,) = await results(gateway, [call(0, budget_s=0.015, shadowed=True)])
    assert spent.shadow is not None and spent.shadow.fate is Fate.LATE and len(gateway.asked) == 1
    (answered,) = await results(SmallGateway(lambda asked: answer()), [call(0, shadowed=True)])
    (failed,) = await results(SmallGateway(lambda asked: problem(504, "deadline_exceeded")), [call(0, shadowed=True)])
    assert answered.shadow is None and failed.shadow is None


def test_the_generator_is_a_process_of_its_own() -> None:
    """The generator runs in its own process, serves several orders, reports a run's age, and ends with its context."""
    ages, aged = list[float](), threading.Event()

    def behave(asked: Asked) -> Told:
        assert aged.wait(60)
        return answer()

    def tick(age_s: float) -> None:
        ages.append(age_s)
        if age_s > 0.1:
            aged.set()

    gateway = SmallGateway(behave)
    with gateway.elsewhere() as url:
        with generating() as generator:
            for _ in range(2):
                calls = [call(at, budget_s=60.0, gap_s=0.01) for at in range(10)]
                found = generator.fire(Order(url, calls, 60.0), tick)
                assert [one.fate for one in found] == [Fate.IN_TIME] * 10
            (child,) = multiprocessing.active_children()
            assert child.is_alive() and child.pid != os.getpid()
        assert not multiprocessing.active_children()
    assert ages.count(0.0) == 2 and aged.is_set()
    assert len(gateway.asked) == 20


def test_a_generator_that_dies_says_so() -> None:
    """A generator that dies raises an error instead of leaving the caller waiting."""
    with SmallGateway(lambda asked: answer(after_s=NEVER)).elsewhere() as url, generating() as generator:

        def kill(age_s: float) -> None:
            for child in multiprocessing.active_children():
                child.kill()

        with pytest.raises(GeneratorFailed, match="-9"):
            generator.fire(Order(url, [call(0)], 60.0), kill)


async def test_the_ceilings_server_answers_whatever_comes() -> None:
    """The server that measures the generator's limit answers every body: large, empty or consecutive."""
    with parrot() as url:
        async with clients_of(url, ["classify"], 60.0) as clients:
            calls = [replace(call(at, budget_s=60.0), body=b"x" * 70_000 * at) for at in range(5)]
            found = await fired(clients, calls, perf_counter)
    assert [one.fate for one in found] == [Fate.IN_TIME] * 5


def test_a_rate_is_honest_while_all_is_sent_on_time_and_answered() -> None:
    """A rate counts as sustained if all requests were sent on time; the first half second does not count."""

    def fire(
        order: Order, tick: Callable[[float], None], late_from_s: float = 0.0, late_to_s: float = 0.5
    ) -> list[Result]:
        return [
            Result(
                one.sequence,
                0,
                one.task,
                one.due_s,
                1.0,
                one.due_s + (late_from_s <= one.due_s < late_to_s),
                1.0,
                Fate.IN_TIME,
            )
            for one in order.calls
        ]

    assert offer("", 200, 2.0, fire, held_out()).honest
    found = offer("", 200, 2.0, partial(fire, late_to_s=1.5), held_out())
    assert not found.honest and found.late_sends == pytest.approx(0.5, abs=0.1)

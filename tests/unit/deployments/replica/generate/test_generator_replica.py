"""A generator's replica: texts of all its requests step together, and each ends by its own deadline."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from byte_prompts import EOS, Scribbler, manifest, prompts, says_text, tokens_of
from fakes import FakeClock, entry
from waiting import until

from deployments.replica.generate.replica import GeneratorReplica
from deployments.replica.generate.writing import Scribe
from gateway.model.messages import Answer, Delta, Failure, FailureKind, Work
from gateway.model.tier import Tier
from gateway.tasks.decoding import MOST_TOGETHER
from gateway.tasks.generate import GenerateParameters

SAID = " all is well"


def work(*inputs: str, remaining_s: float = 60.0, strict: bool = False, streamed: bool = False, **asked: Any) -> Work:
    """A request to write on."""
    return Work(
        "generate", inputs or ("Say:",), GenerateParameters(**asked), remaining_s, strict, "r-1", streamed=streamed
    )


async def answers(folder: Path, engine: Scribbler, *batches: list[Work]) -> list[Answer | Failure]:
    """What a replica over an engine answers to batches that have all come before it begins."""
    engine.gate.clear()
    replica = GeneratorReplica(
        entry("scribbler", Tier.BALANCED, 40.0), Scribe(manifest(), engine, prompts(folder)), 100, engine.clock
    )
    replica.start()
    try:
        handled = asyncio.gather(*(replica.handle(batch) for batch in batches))
        prompts_sent = sum(1 if one.parameters.roles else len(one.inputs) for batch in batches for one in batch)
        await until(lambda: replica.load().sharing == prompts_sent)
        engine.gate.set()
        results = await handled
    finally:
        engine.gate.set()
        await replica.stop(5.0)
    return [one for batch in results for one in batch]


def texts(*results: Answer | Failure) -> list[str]:
    """What was written."""
    assert not any(isinstance(one, Failure) for one in results), results
    return [said.generated_text for one in results if isinstance(one, Answer) for said in one.outputs]


async def test_texts_of_all_requests_step_together(tmp_path: Path) -> None:
    """Prompts of one batch, of one request and of other batches share steps, and each has the answer it has alone."""
    engine = Scribbler(FakeClock(), says_text(SAID))
    found = await answers(tmp_path, engine, [work("a"), work("bcd", "e")], [work("Say: more")])
    assert texts(*found) == [SAID] * 4
    assert max(engine.companies) == 4 and engine.steps == 4 * (len(SAID) + 1)
    assert all(isinstance(one, Answer) and one.timings.batch_size > 1 for one in found)


async def test_no_more_than_so_many_step_together(tmp_path: Path) -> None:
    """Others wait until one of them has ended."""
    engine = Scribbler(FakeClock(), says_text(SAID))
    found = await answers(tmp_path, engine, [work(str(at)) for at in range(2 * MOST_TOGETHER + 1)])
    assert texts(*found) == [SAID] * (2 * MOST_TOGETHER + 1)
    assert max(engine.companies) == MOST_TOGETHER


async def test_each_text_ends_by_its_own_deadline(tmp_path: Path) -> None:
    """A text with little time stops in time beside others that go on to their end."""
    engine = Scribbler(FakeClock(), says_text("abcdefghijklmnopqrstuvwxyz"))
    clock = engine.clock
    short, long = await answers(tmp_path, engine, [work("a", remaining_s=0.15), work("b")])
    assert isinstance(short, Answer) and isinstance(long, Answer)
    assert long.generation[0].finish_reason == "stop" and short.generation[0].finish_reason == "deadline"
    assert 0 < short.generation[0].tokens < 13 and clock() > 1000.15


async def test_a_fault_of_the_engine_fails_its_text_and_no_other(tmp_path: Path) -> None:
    """Who stepped beside it is answered, and so is who comes afterwards."""

    def failing(prompt: tuple[int, ...], written: tuple[int, ...]) -> int:
        if len(written) == 3 and prompt[0] == tokens_of("x")[0]:
            raise ArithmeticError("secret")
        return tokens_of("ab")[len(written) % 2] if len(written) < 6 else EOS

    engine = Scribbler(FakeClock(), failing)
    replica = GeneratorReplica(
        entry("scribbler", Tier.BALANCED, 40.0), Scribe(manifest(), engine, prompts(tmp_path)), 100, engine.clock
    )
    replica.start()
    try:
        failed = await replica.handle([work("x"), work("y")])
        later = await replica.handle([work("z")])
    finally:
        await replica.stop(5.0)
    assert isinstance(failed[0], Failure) and failed[0].kind is FailureKind.ENGINE
    assert "secret" not in failed[0].detail and texts(failed[1]) == ["ababab"]
    assert texts(*later) == ["ababab"]


async def test_strict_work_without_a_token_in_time_has_expired(tmp_path: Path) -> None:
    """Best effort gets what there is, which is nothing, and which is no answer that counts."""
    engine = Scribbler(FakeClock(), says_text(SAID))
    strict, lenient = await answers(
        tmp_path, engine, [work("a", remaining_s=0.01, strict=True), work("b", remaining_s=0.01)]
    )
    assert isinstance(strict, Failure) and strict.kind is FailureKind.EXPIRED
    assert texts(lenient) == [""]
    assert isinstance(lenient, Answer) and lenient.generation[0].lead


async def test_what_is_streamed_is_the_answer_also_in_company(tmp_path: Path) -> None:
    """Deltas go to their own requests; joined, they are the answers, the repeated prompt included."""
    engine = Scribbler(FakeClock(), says_text(SAID))
    replica = GeneratorReplica(
        entry("scribbler", Tier.BALANCED, 40.0), Scribe(manifest(), engine, prompts(tmp_path)), 100, engine.clock
    )
    replica.start()
    told: dict[tuple[int, int], str] = {}

    def emit(place: int, delta: Delta) -> None:
        told[place, delta.index] = told.get((place, delta.index), "") + delta.text

    try:
        batch = [work("a", streamed=True, full_text=True), work("b"), work("c", "d", streamed=True, max_new_tokens=4)]
        found = await replica.handle(batch, emit)
    finally:
        await replica.stop(5.0)
    assert told == {(0, 0): f"a{SAID}", (2, 0): SAID[:4], (2, 1): SAID[:4]}
    assert texts(*found) == [f"a{SAID}", SAID, SAID[:4], SAID[:4]]


async def test_a_conversation_is_answered_once(tmp_path: Path) -> None:
    """Messages are one prompt."""
    engine = Scribbler(FakeClock(), says_text(SAID))
    (found,) = await answers(tmp_path, engine, [work("Hi", "Yes?", "So", roles=("user", "assistant", "user"))])
    assert texts(found) == [SAID] and len(engine.read) == 1

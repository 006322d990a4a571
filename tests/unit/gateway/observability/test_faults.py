"""Faults of the gateway's own: each is counted, the first of its kind is logged, and none reaches a request."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import get_args

import pytest
from fakes import Kept
from sample_records import MARK, RECORD
from scraped import samples, total

from gateway.model.faults import Part, attempt
from gateway.observability.faults import Faults
from gateway.observability.metrics import exposition
from gateway.observability.record import RequestRecord, tell

FAULTS = "punctual_internal_faults_total"


def raised(kind: type[Exception]) -> Exception:
    """An exception that was raised here, and quotes a text."""
    try:
        raise kind(MARK)
    except Exception as error:
        return error


async def test_every_part_is_there_at_zero() -> None:
    """`rate` sees the first fault of each."""
    assert samples(await exposition(Faults()), FAULTS) == [({"part": part}, 0.0) for part in get_args(Part)]


@pytest.mark.parametrize("part", get_args(Part))
async def test_each_fault_is_counted_and_each_kind_is_logged_once(part: Part, caplog: pytest.LogCaptureFixture) -> None:
    """The line names part, type and place, and not the message, which may quote a request; another type has its own."""
    faults = Faults()
    for _ in range(5):
        faults.note(part, raised(ZeroDivisionError))
    faults.note(part, raised(ValueError))
    text = await exposition(faults)
    assert total(text, FAULTS, part=part) == 6.0 == total(text, FAULTS)
    first, second = caplog.records
    assert first.levelno == second.levelno == logging.ERROR
    for line, kind in ((first.getMessage(), "ZeroDivisionError"), (second.getMessage(), "ValueError")):
        assert f"fault in {part}: {kind}" in line and " in raised" in line and "test_faults.py:" in line
    assert MARK not in caplog.text


async def test_a_guarded_call_gives_its_result_or_the_plainer_one() -> None:
    """What it returns comes through; what it raises is counted, and cancellation is no fault."""
    faults = Faults()
    assert attempt("pricing", faults.note, lambda: divmod(7, 2), lambda: (0, 0)) == (3, 1)
    assert attempt("pricing", faults.note, lambda: divmod(7, 0), lambda: (0, 0)) == (0, 0)
    with pytest.raises(asyncio.CancelledError):
        attempt("pricing", faults.note, cancelled, cancelled)
    assert total(await exposition(faults), FAULTS) == 1.0


def cancelled() -> None:
    """Ends as a request does whose client left."""
    raise asyncio.CancelledError


class Broken:
    """An observer against the rule: it raises."""

    def observe(self, record: RequestRecord) -> None:
        """Raises."""
        raise OSError(f"no space left for {record.request_id}")


async def test_an_observer_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The others see the record once, whichever side of it they stand; that it failed is counted, and said once."""
    before, after, faults = Kept(), Kept(), Faults()
    one = replace(RECORD, request_id=MARK)
    for _ in range(3):
        tell((before, Broken(), after), one, faults.note)
    assert before.records == after.records == [one] * 3
    assert total(await exposition(faults), FAULTS, part="observer") == 3.0
    assert caplog.text.count("fault in observer: OSError") == 1 and MARK not in caplog.text

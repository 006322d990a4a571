"""Faults of the gateway itself: each is counted, the first of its kind is logged, and none reaches a request."""

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
    """Return an exception that was raised here and quotes a text."""
    try:
        raise kind(MARK)
    except Exception as error:
        return error


async def test_every_part_is_there_at_zero() -> None:
    """Every part has a series at 0 from the start, so that `rate` sees its first fault."""
    assert samples(await exposition(Faults()), FAULTS) == [({"part": part}, 0.0) for part in get_args(Part)]


@pytest.mark.parametrize("part", get_args(Part))
async def test_each_fault_is_counted_and_each_kind_is_logged_once(part: Part, caplog: pytest.LogCaptureFixture) -> None:
    """Every fault is counted, and each type is logged once with its part and place, without the message."""
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
    """A guarded call returns its result, or the fallback's after a fault; cancellation is no fault."""
    faults = Faults()
    assert attempt("pricing", faults.note, lambda: divmod(7, 2), lambda: (0, 0)) == (3, 1)
    assert attempt("pricing", faults.note, lambda: divmod(7, 0), lambda: (0, 0)) == (0, 0)
    with pytest.raises(asyncio.CancelledError):
        attempt("pricing", faults.note, cancelled, cancelled)
    assert total(await exposition(faults), FAULTS) == 1.0


def cancelled() -> None:
    """Raise as a request does whose client has left."""
    raise asyncio.CancelledError


class Broken:
    """An observer that breaks its contract: it raises."""

    def observe(self, record: RequestRecord) -> None:
        """Raise."""
        raise OSError(f"no space left for {record.request_id}")


async def test_an_observer_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A raising observer keeps no other from a record; its faults are counted and logged once."""
    before, after, faults = Kept(), Kept(), Faults()
    one = replace(RECORD, request_id=MARK)
    for _ in range(3):
        tell((before, Broken(), after), one, faults.note)
    assert before.records == after.records == [one] * 3
    assert total(await exposition(faults), FAULTS, part="observer") == 3.0
    assert caplog.text.count("fault in observer: OSError") == 1 and MARK not in caplog.text

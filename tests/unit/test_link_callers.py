"""How many send a replica work: what the link adds to its load report."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from waiting import Gate, until

from deployments.link import Endpoint, LinkClient, LinkServer, UnixAddress
from gateway.model.messages import LoadReport

SECRET = b"a secret of the application"


@pytest.mark.asyncio
async def test_the_load_says_how_many_callers_there_are(tmp_path: Path) -> None:
    """Every client hears of every other with the next report, and of its leaving; a stranger who has not proven the
    secret does not count. Nobody is told that there is none."""
    gate, address = Gate(), UnixAddress(str(tmp_path / "s"))
    server = LinkServer(gate.handle, lambda: LoadReport(0.5, 3, sharing=2), SECRET)
    await server.start(address)
    heard: list[list[LoadReport]] = [[], []]
    endpoint = Endpoint("replica", "here", address)
    first, second = (
        LinkClient(endpoint, SECRET, "here", reports.append, random.Random(1), heartbeat_s=0.02) for reports in heard
    )
    _, stranger = await asyncio.open_unix_connection(address.path)
    await first.connect()
    await until(lambda: len(heard[0]) > 1)
    assert {report.callers for report in heard[0]} == {1}
    await second.connect()
    await until(lambda: heard[1:] != [[]] and heard[0][-1].callers == 2)
    assert heard[1][0] == LoadReport(0.5, 3, sharing=2, callers=2)
    await second.close()
    await until(lambda: heard[0][-1].callers == 1)
    stranger.close()
    await first.close()
    await server.close()
    assert LoadReport(0.0, 0).callers == 1

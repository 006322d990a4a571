"""Every counted request of a run as a line of JSON, durations in seconds: for questions that no table has asked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from loadtests.offering.experiment import Ran


def add_samples(ran: Ran, path: Path) -> None:
    """Adds a run's requests to a file of JSON Lines, each with the run it was of."""
    result = ran.result
    run = {"policy": result.policy, "load": result.load, "cv": result.cv, "seed": result.seed}
    encoder = msgspec.json.Encoder()
    with path.open("ab") as file:
        file.writelines(encoder.encode(run | msgspec.to_builtins(one)) + b"\n" for one in ran.landings)

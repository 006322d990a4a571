"""Options that take several values, or none, of `punctual simulate` and `punctual load`."""

from __future__ import annotations

import pytest

from loadtests.workload.options import spread


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("grid --loads 0.5 2 --jobs 1", "grid --loads 0.5 --loads 2 --jobs 1"),
        ("--seeds 1 -2 grid", "--seeds 1 --seeds -2 grid"),
        ("--loads 1 --loads 2", "--loads 1 --loads 2"),
        ("grid --loads", "grid --loads"),
        ("grid --loads x", "grid --loads x"),
        ("grid --policy a b", "grid --policy a b"),
        ("grid --shadow --loads 1", "grid --shadow 100 --loads 1"),
        ("grid --shadow 3", "grid --shadow 3"),
        ("grid --shadow", "grid --shadow 100"),
    ],
)
def test_every_number_after_such_an_option_is_its(said: str, meant: str) -> None:
    """An option takes all numbers up to the first other word; faulty values are left for the command to refuse."""
    assert list(spread(said.split(), {"--shadow": "100"})) == meant.split()

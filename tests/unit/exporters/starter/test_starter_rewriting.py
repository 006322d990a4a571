"""Laws of looking up claims: what a summary takes from its source stands there, what it invents does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.starter.rewriting.__main__ import checked, whole
from exporters.starter.rewriting.claims import claims_of

SOURCE = "The council of Leeds will not replace 92,000 street lights before 2030, said Ms O'Brien of the BBC."


@pytest.mark.parametrize(
    ("summary", "missing"),
    [
        ("Leeds keeps its street lights.", ()),
        ("The lights of Leeds and York stay.", ("York",)),
        ("There are 92,000 lights, and 1.5 million people.", ("1.5",)),
        ("O'Brien told the BBC so.", ()),
        ("Leeds does not pay.", ()),
        ("Nothing is said of NASA.", ("NASA",)),
    ],
)
def test_what_the_source_lacks_is_named(summary: str, missing: tuple[str, ...]) -> None:
    """Names and numbers that the source lacks are missing; the first word of a sentence is no name by its capital."""
    assert claims_of(summary, SOURCE).missing == missing


def test_a_negation_stands_where_the_source_has_one() -> None:
    """A summary that denies is found out if its source denies nothing."""
    assert claims_of("They don't pay.", "They pay.").missing == ("n't",)
    assert claims_of("They don't pay.", "They never pay.").missing == ()


@given(st.text())
def test_a_source_has_all_that_it_says(text: str) -> None:
    """A text claims nothing that it lacks itself."""
    assert claims_of(text, text).missing == ()


def test_what_claims_more_than_its_source_is_replaced_by_it() -> None:
    """A rewriting that invents a name, or says nothing, gives way to the sentences that it was made of."""
    sources = ["The soup was cold.", "Leeds is wet.", "It rains."]
    assert checked(["The soup was cold, said Ann.", "Leeds is wet!", ""], sources) == [
        sources[0],
        "Leeds is wet!",
        "It rains.",
    ]


def test_a_rewriting_ends_with_a_whole_sentence() -> None:
    """What was written is cut after its last whole sentence, and left where it ends none."""
    assert whole('He said "no." Then 1.5 of') == 'He said "no."'
    assert whole("no end at all") == "no end at all"

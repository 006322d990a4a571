"""What a decoding race counts: the time of a token, the rounds that count, gains, verdicts; and what it refuses."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from exporters.errors import SourceRefused
from loadtests.decoding_commands import engines_arguments
from loadtests.decoding_engines import BASELINE, ENGINES, DecodingEngine, named_engines
from loadtests.decoding_figures import (
    BEAMS,
    GREEDY,
    DecodingTurn,
    DecodingTurns,
    Verdict,
    encoder,
    summary,
    token,
    verdicts,
)
from loadtests.decoding_folders import RANDOM, Shapes, prepare, shapes
from loadtests.decoding_race import DecodingReport, DecodingSettings, decoding_race, input_text
from loadtests.decoding_report import cautions, markdown, print_decoding, rows, write_json, write_svg
from loadtests.errors import NoRace
from loadtests.peers.decoding_port import Loaded
from loadtests.turns import WARM_UP, Spread

OTHER = "ctranslate2-int8"
TOKENS = 11
KNOWN = Shapes(start_id=2, end_id=3, entries=22000, positions=1024)


def a_turn(engine: str, number: int, beams: int, token_s: float, encode_s: float | None = 0.2) -> DecodingTurn:
    """A turn in which the encoder takes 0.2 s, and every token the same time."""
    return DecodingTurn(number, beams, engine, TOKENS, encode_s, 0.2 + token_s, 0.2 + TOKENS * token_s, 10**9 + number)


def a_race(
    gains: tuple[float, ...] = (1.4, 1.5, 1.6), beam_gains: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> DecodingTurns:
    """A warm-up and three rounds, each slower than the one before for both; the other gains so much in each."""
    taken = []
    for number in range(WARM_UP, len(gains) + 1):
        for beams, each in ((GREEDY, gains), (BEAMS, beam_gains)):
            token_s = 0.02 * beams * (1 + number)
            gain = each[number - 1] if number else 0.1  # the warm-up does not count
            taken.append(a_turn(BASELINE, number, beams, token_s))
            taken.append(a_turn(OTHER, number, beams, token_s / gain, encode_s=None))
    return DecodingTurns(tuple(taken))


def a_report(turns: DecodingTurns, others: float = 0.0, missing: tuple[str, ...] = ()) -> DecodingReport:
    """A race of these turns on a host."""
    loaded = {BASELINE: Loaded(1.5, 10**9, "int8"), OTHER: Loaded(0.5, 3 * 10**8, "int8_float32")}
    settings = DecodingSettings(rounds=3, tokens=TOKENS)
    return DecodingReport("student", "a <host>", settings, 512, loaded, (OTHER,), missing, False, others, turns, 9.0)


def parsed(*arguments: str) -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser()
    engines_arguments(parser)
    return parser.parse_args(arguments)


def test_a_token_costs_what_many_take_more_than_one() -> None:
    """The encoder and the first step fall out; an encoder that runs by itself is what was measured."""
    turn = a_turn(BASELINE, 1, GREEDY, token_s=0.03)
    assert turn.token_s == pytest.approx(0.03)
    assert turn.encoder_s == 0.2
    assert replace(turn, encode_s=None).encoder_s == pytest.approx(0.2)


def test_gains_are_taken_within_each_round() -> None:
    """Drift over the rounds bends no ratio, the warm-up does not count, and the spread has its least and most."""
    gain = a_race().gain(OTHER, BASELINE, GREEDY, token)
    assert gain is not None
    assert (gain.median, gain.low, gain.high) == pytest.approx((1.5, 1.4, 1.6))
    spread = a_race().spread(BASELINE, GREEDY, summary)
    assert spread is not None
    assert spread.low == pytest.approx(0.2 + TOKENS * 0.04)


def test_a_round_in_which_one_token_took_longer_than_all_does_not_count() -> None:
    """Neither for the engine it befell nor for the others, at those beams only; it is told."""
    good = a_race()
    spoilt = [
        replace(turn, all_s=turn.one_s / 2) if (turn.round, turn.beams, turn.engine) == (2, GREEDY, OTHER) else turn
        for turn in good.taken
    ]
    turns = DecodingTurns(tuple(spoilt))
    assert (turns.rounds(GREEDY), turns.rounds(BEAMS)) == ([1, 3], [1, 2, 3])
    gain = turns.gain(OTHER, BASELINE, GREEDY, token)
    assert gain is not None
    assert gain.median == pytest.approx(1.5)  # of 1.4 and 1.6
    assert "round 2 does not count with 1 beam: ctranslate2-int8" in "".join(cautions(a_report(turns)))


def test_a_race_without_a_round_that_counts_gives_no_figures() -> None:
    """Dashes rather than numbers, and no verdict in anyone's favour."""
    nothing = DecodingTurns(tuple(turn for turn in a_race().taken if turn.round == WARM_UP))
    assert nothing.spread(BASELINE, GREEDY, encoder) is None
    assert nothing.gain(OTHER, BASELINE, BEAMS, token) is None
    (verdict,) = verdicts(nothing, [OTHER], BASELINE)
    assert not verdict.worth
    assert "not judged" in verdict.sentence() and "not measured" in verdict.sentence()
    assert rows(a_report(nothing))[0][4] == "-"


@pytest.mark.parametrize(
    ("greedy", "beams", "worth", "words"),
    [
        ((1.4, 1.5, 1.6), (0.9, 0.9, 0.9), True, "worth an engine: greedy 1.50 (1.40 to 1.60)"),
        ((0.9, 0.9, 0.9), (1.3, 1.5, 1.6), True, "worth an engine"),
        ((1.2, 1.5, 1.6), (1.0, 1.0, 1.0), False, "1.3 is passed, but not in every round"),
        ((1.2, 1.2, 1.6), (1.0, 1.0, 1.0), False, "not worth an engine: greedy 1.20"),
    ],
)
def test_a_library_is_worth_an_engine_when_it_gains_enough_in_every_round(
    greedy: tuple[float, ...], beams: tuple[float, ...], worth: bool, words: str
) -> None:
    """Greedy or with beams, 1.3 and more; a single slow round is enough against it."""
    spreads = [Spread.of(greedy), Spread.of(beams)]
    verdict = Verdict(OTHER, BASELINE, *spreads)
    assert verdict.worth is worth
    assert words in verdict.sentence()


def test_two_rounds_judge_nothing() -> None:
    """However fast the other was in them."""
    (verdict,) = verdicts(a_race(gains=(2.0, 2.0), beam_gains=(2.0, 2.0)), [OTHER], BASELINE)
    assert not verdict.worth
    assert "not judged, fewer than 3 rounds count" in verdict.sentence()


def test_no_verdict_without_the_baseline() -> None:
    """There is nothing that it could be compared with."""
    alone = DecodingTurns(tuple(turn for turn in a_race().taken if turn.engine == OTHER))
    assert verdicts(alone, [OTHER], BASELINE) == []


def test_a_report_is_shown_drawn_and_written(tmp_path: Path) -> None:
    """The same figures in each form; what was derived is marked, what a reader must know is said."""
    report = a_report(a_race(), others=0.5, missing=("openvino-bf16",))
    shown = io.StringIO()
    print_decoding(report, Console(file=shown, width=200))
    assert "worth an engine" in shown.getvalue() and "50% of it was busy" in shown.getvalue()
    narrow = io.StringIO()
    print_decoding(report, Console(file=narrow, width=80))
    assert "…" not in narrow.getvalue() and "1.50" in narrow.getvalue()
    text = markdown([report])
    assert "| ctranslate2-int8 (int8_float32) | 0.5 | 300, later 1000 | ≈ 200 (200 to 200) |" in text
    assert "1.50 (1.40 to 1.60)" in text and "openvino-bf16 is left out" in text
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {11}
    write_json([report], tmp_path / "race.json")
    (document,) = json.loads((tmp_path / "race.json").read_text())
    assert document["verdicts"][0]["worth"] is True
    assert len(document["turns"]["taken"]) == 16
    write_svg([report, report], tmp_path / "race.svg")
    drawing = ElementTree.parse(tmp_path / "race.svg").getroot()
    assert len(drawing.findall("{http://www.w3.org/2000/svg}rect")) == 1 + 2 * 2 * 2


def test_arguments_that_measure_nothing_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """By the parser, with the option's name."""
    for option, value in (("--rounds", "0"), ("--tokens", "1"), ("--threads", "x"), ("--input-tokens", "1")):
        with pytest.raises(SystemExit):
            parsed(option, value)
        assert option in capsys.readouterr().err
    assert parsed("--checkpoint", "a", "--checkpoint", "b").checkpoint == ["a", "b"]
    assert parsed().work.name == "engines"


def test_engines_are_chosen_by_name() -> None:
    """All of them by default, in the order of the register; an unknown one is refused with the list."""
    assert named_engines(None) == ENGINES
    assert [one.name for one in named_engines(["torch-bf16", BASELINE])] == [BASELINE, "torch-bf16"]
    with pytest.raises(NoRace, match="no engine is called fastest; there are onnxruntime-int8"):
        named_engines(["fastest"])


def test_an_engine_is_there_when_its_library_is() -> None:
    """Found without importing it."""
    assert DecodingEngine("json-fp32", "json", "fp32").installed
    assert not DecodingEngine("none-fp32", "a_library_that_nobody_has", "fp32").installed
    assert ENGINES[0].installed is (find_spec("onnxruntime") is not None)


def test_a_race_that_compares_nothing_is_refused(tmp_path: Path) -> None:
    """Before anything is made or loaded."""
    console = Console(file=io.StringIO())
    with pytest.raises(NoRace, match="compared with onnxruntime-int8"):
        decoding_race("distilbart-6-6", tmp_path, DecodingSettings(engines=(OTHER, "torch-bf16")), console)
    with pytest.raises(NoRace, match="2 tokens or more"):
        decoding_race("distilbart-6-6", tmp_path, DecodingSettings(tokens=1), console)
    assert not list(tmp_path.iterdir())


def test_the_text_is_the_same_every_time_and_fits() -> None:
    """Equal seeds, equal ids; no special token but the end, as long as asked or as the checkpoint takes."""
    text = input_text(KNOWN, DecodingSettings())
    assert text == input_text(KNOWN, DecodingSettings())
    assert len(text) == 512 and text[-1] == 3
    assert all(5 <= one < 22000 for one in text[:-1])
    assert len(input_text(replace(KNOWN, positions=64), DecodingSettings())) == 64
    with pytest.raises(NoRace, match="at most 16 tokens, not 32"):
        input_text(replace(KNOWN, positions=16), DecodingSettings())


def test_a_checkpoint_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    """As is one that does not say where to start; neither has a graph made of it."""
    console = Console(file=io.StringIO())
    with pytest.raises(NoRace, match="minilm-sentiment is no encoder-decoder"):
        prepare("starter:minilm-sentiment", ["int8"], tmp_path, 1, console)
    with pytest.raises(SourceRefused, match="no folder"):
        prepare(str(tmp_path / "nothing"), ["int8"], tmp_path, 1, console)
    (tmp_path / "config.json").write_text(json.dumps({"is_encoder_decoder": True, "vocab_size": 5}))
    with pytest.raises(NoRace, match="lacks one of decoder_start_token_id"):
        shapes(tmp_path)


@pytest.mark.export
def test_the_random_architectures_are_those_that_can_be_written() -> None:
    """The race knows their names without importing torch; they are full size."""
    from exporters.random_seq2seq import ARCHITECTURES, architecture

    assert tuple(ARCHITECTURES) == RANDOM
    assert all(architecture(name).d_model == 1024 for name in RANDOM)
    with pytest.raises(SourceRefused, match="no such architecture; there are distilbart-6-6"):
        architecture("gpt")

"""What a decoding race measures: the time of a token, the rounds that count, gains and judgements."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from exporters.errors import SourceRefused
from loadtests.bench import engines
from loadtests.bench.decoding.folders import RANDOM, Shapes, prepare, shapes
from loadtests.bench.decoding.process import Loaded, Writing
from loadtests.bench.engines import (
    BASELINE,
    BEAMS,
    CANDIDATES,
    ENGINES,
    GREEDY,
    HOW,
    Engine,
    Race,
    Settings,
    cautions,
    input_text,
    judgement,
    judgements,
    measure,
    named_engines,
    report_of,
)
from loadtests.bench.measuring.report import present
from loadtests.bench.measuring.rounds import WARM_UP, Slot, Spread, Turn, Turns
from loadtests.errors import NoRace

OTHER = "ctranslate2-int8"
TOKENS = 11
KNOWN = Shapes(start_id=2, end_id=3, entries=22000, positions=1024)


def a_turn(engine: str, number: int, beams: int, token_s: float, encode_s: float | None = 0.2) -> Turn[Writing]:
    """A turn in which the encoder takes 0.2 s, and every token the same time."""
    sample = Writing(TOKENS, encode_s, 0.2 + token_s, 0.2 + TOKENS * token_s, 10**9 + number)
    return Turn(Slot(number, beams, engine), sample)


def turns_of(
    gains: tuple[float, ...] = (1.4, 1.5, 1.6), beam_gains: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Turns[Writing]:
    """A warm-up and three rounds, each slower than the one before; the other engine gains these factors."""
    taken = []
    for number in range(WARM_UP, len(gains) + 1):
        for beams, each in ((GREEDY, gains), (BEAMS, beam_gains)):
            token_s = 0.02 * beams * (1 + number)
            gain = each[number - 1] if number else 0.1  # the warm-up does not count
            taken.append(a_turn(BASELINE, number, beams, token_s))
            taken.append(a_turn(OTHER, number, beams, token_s / gain, encode_s=None))
    return Turns(tuple(taken))


def a_race(turns: Turns[Writing], others: float = 0.0, missing: tuple[str, ...] = ()) -> Race:
    """A race with these turns."""
    loaded = {BASELINE: Loaded(1.5, 10**9, "int8"), OTHER: Loaded(0.5, 3 * 10**8, "int8_float32")}
    settings = Settings(rounds=3, tokens=TOKENS)
    return Race("student", "a <host>", settings, 512, loaded, missing, False, others, turns, 9.0)


def test_a_token_costs_what_many_take_more_than_one() -> None:
    """The time of a token excludes the encoder and the first step; without a measured encoder its time is derived."""
    sample = a_turn(BASELINE, 1, GREEDY, token_s=0.03).sample
    assert sample.token_s == pytest.approx(0.03)
    assert sample.encoder_s == 0.2
    assert msgspec.structs.replace(sample, encode_s=None).encoder_s == pytest.approx(0.2)


def test_gains_are_taken_within_each_round() -> None:
    """Gains are ratios of speed within a round, so a drift of the machine cancels out."""
    assert judgements(turns_of()) == [
        f"{OTHER}: worth an engine: greedy 1.50 (1.40 to 1.60); 4 beams 1.00 (1.00 to 1.00) × {BASELINE}'s speed"
    ]
    _, writing = report_of([a_race(turns_of())]).tables
    assert writing.rows[0] == [BASELINE, "greedy", "60.0 (40.0 to 80.0)", "1.00 (1.00 to 1.00)", "0.86 (0.64 to 1.08)"]


def test_a_round_in_which_one_token_took_longer_than_all_does_not_count() -> None:
    """A round in which one token took longer than all does not count for any engine at those beams, with a caution."""
    spoilt = [
        replace(turn, sample=msgspec.structs.replace(turn.sample, all_s=turn.sample.one_s / 2))
        if turn.slot == Slot(2, GREEDY, OTHER)
        else turn
        for turn in turns_of().taken
    ]
    turns = Turns(tuple(spoilt))
    assert (turns.rounds(GREEDY), turns.rounds(BEAMS)) == ([1, 3], [1, 2, 3])
    (said,) = judgements(turns)
    assert "greedy not measured; 4 beams 1.00" in said, "two rounds are too few to judge by"
    assert "ctranslate2-int8 at 1 beams: it took" in "".join(cautions(a_race(turns)))
    _, writing = report_of([a_race(turns)]).tables
    assert writing.rows[1][:2] == [OTHER, "greedy"] and writing.rows[1][3] == "1.50 (1.40 to 1.60)"


def test_a_race_without_a_round_that_counts_gives_no_figures() -> None:
    """A race without a counted round shows dashes instead of figures, and gives no judgement."""
    nothing = Turns(tuple(turn for turn in turns_of().taken if turn.slot.round == WARM_UP))
    (said,) = judgements(nothing)
    assert "not judged" in said and "not measured" in said
    reading, writing = report_of([a_race(nothing)]).tables
    assert reading.rows[0][3] == "-" and set(writing.rows[0][2:]) == {"-"}


@pytest.mark.parametrize(
    ("greedy", "beams", "words"),
    [
        ((1.4, 1.5, 1.6), (0.9, 0.9, 0.9), "worth an engine: greedy 1.50 (1.40 to 1.60)"),
        ((0.9, 0.9, 0.9), (1.3, 1.5, 1.6), "worth an engine: greedy 0.90"),
        ((1.2, 1.5, 1.6), (1.0, 1.0, 1.0), "not worth an engine: 1.3 is passed, but not in every round: greedy 1.50"),
        ((1.2, 1.2, 1.6), (1.0, 1.0, 1.0), "not worth an engine: greedy 1.20"),
    ],
)
def test_a_library_is_worth_an_engine_when_it_gains_enough_in_every_round(
    greedy: tuple[float, ...], beams: tuple[float, ...], words: str
) -> None:
    """A library is worth an engine if it gains 1.3 or more in every round, greedy or with beams."""
    spreads = Spread.of(greedy), Spread.of(beams)
    said = judgement(OTHER, {how: spread for how, spread in zip(HOW.values(), spreads, strict=True) if spread})
    assert said.startswith(f"{OTHER}: {words}")


def test_two_rounds_judge_nothing() -> None:
    """With only two counted rounds nothing is judged, however large the gain."""
    (said,) = judgements(turns_of(gains=(2.0, 2.0), beam_gains=(2.0, 2.0)))
    assert said.startswith(f"{OTHER}: not judged, fewer than 3 rounds count")


def test_nothing_is_judged_without_the_baseline() -> None:
    """Without the baseline nothing is judged."""
    assert judgements(Turns(tuple(turn for turn in turns_of().taken if turn.slot.contestant == OTHER))) == []


def test_a_report_is_shown_drawn_and_written(tmp_path: Path) -> None:
    """A report shows equal figures at the terminal, in Markdown, as JSON and drawn; derived figures are marked."""
    race = a_race(turns_of(), others=0.5, missing=("openvino-bf16",))
    json_file, markdown, plot = (tmp_path / f"race.{kind}" for kind in ("json", "md", "svg"))
    console = Console(file=(shown := io.StringIO()), width=100)
    report = report_of([race, race])
    assert present(report, console, json=json_file, markdown=markdown, plot=plot) == 0
    assert "worth an engine" in shown.getvalue() and "50% of it was busy" in " ".join(shown.getvalue().split())
    assert "…" not in shown.getvalue()
    text = markdown.read_text()
    assert "| ctranslate2-int8 (int8_float32) | 0.5 | 300, later 1000 | ≈ 200 (200 to 200) |" in text
    assert "1.50 (1.40 to 1.60)" in text and "openvino-bf16 is left out" in text
    assert text.count("| ctranslate2-int8 | greedy | 40.0 (28.6 to 50.0) |") == 2
    document, _ = json.loads(json_file.read_text())["races"]
    assert document["host"] == "a <host>" and len(document["turns"]["taken"]) == 16
    assert report.figure is not None
    assert [axes.get_title() for axes in report.figure().axes] == ["student, greedy", "student, 4 beams"] * 2
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_arguments_that_measure_nothing_are_refused() -> None:
    """Impossible arguments are refused at the command line, and the option is named."""
    app = typer.Typer()
    app.command()(engines.command)
    for option, value in (("--rounds", "0"), ("--tokens", "1"), ("--threads", "x"), ("--input-tokens", "1")):
        refused = CliRunner().invoke(app, [option, value], env={"COLUMNS": "200"})
        assert refused.exit_code == 2 and option in refused.output


def test_engines_are_chosen_by_name() -> None:
    """Engines are chosen by name, all of them by default; an unknown name is refused with the list."""
    assert named_engines(None) == ENGINES
    assert [one.name for one in named_engines(["torch-bf16", BASELINE])] == [BASELINE, "torch-bf16"]
    with pytest.raises(NoRace, match="no engine is called fastest; there are onnxruntime-int8"):
        named_engines(["fastest"])
    assert OTHER in CANDIDATES and BASELINE not in CANDIDATES


def test_an_engine_is_there_when_its_library_is() -> None:
    """An engine counts as installed if its library can be found, without importing it."""
    assert Engine("json-fp32", "json", "fp32").installed
    assert not Engine("none-fp32", "a_library_that_nobody_has", "fp32").installed
    assert ENGINES[0].installed is (find_spec("onnxruntime") is not None)


def test_a_race_that_compares_nothing_is_refused(tmp_path: Path) -> None:
    """A race without anything to compare is refused before anything is exported or loaded."""
    console = Console(file=io.StringIO())
    with pytest.raises(NoRace, match="compared with onnxruntime-int8"):
        measure(["distilbart-6-6"], tmp_path, Settings(engines=(OTHER, "torch-bf16")), console)
    with pytest.raises(NoRace, match="2 tokens or more"):
        measure(["distilbart-6-6"], tmp_path, Settings(tokens=1), console)
    assert not list(tmp_path.iterdir())


def test_the_text_is_the_same_every_time_and_fits() -> None:
    """Equal seeds give equal token ids, without special tokens but the end, no longer than the checkpoint takes."""
    text = input_text(KNOWN, 32, 512, seed=20)
    assert text == input_text(KNOWN, 32, 512, seed=20)
    assert len(text) == 512 and text[-1] == 3
    assert all(5 <= one < 22000 for one in text[:-1])
    assert len(input_text(replace(KNOWN, positions=64), 32, 512, seed=20)) == 64
    with pytest.raises(NoRace, match="at most 16 tokens, not 32"):
        input_text(replace(KNOWN, positions=16), 32, 512, seed=20)


def test_a_checkpoint_that_writes_nothing_is_refused(tmp_path: Path) -> None:
    """A checkpoint that is no encoder-decoder, or lacks a start token, is refused before a graph is made."""
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
    """The names of the random architectures are those of the exporter, and all are full size."""
    from exporters.random_seq2seq import ARCHITECTURES, architecture

    assert tuple(ARCHITECTURES) == RANDOM
    assert all(architecture(name).d_model == 1024 for name in RANDOM)
    with pytest.raises(SourceRefused, match="no such architecture; there are distilbart-6-6"):
        architecture("gpt")

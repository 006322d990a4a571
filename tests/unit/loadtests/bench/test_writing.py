"""What stepping together is worth: figures, verdicts and the report, and the contestants over an engine by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from byte_prompts import WINDOW, Scribbler, manifest, prompts, says_text
from fakes import FakeClock
from rich.console import Console
from small_variants import write_variant
from typer.testing import CliRunner

from deployments.replica.generate.replica import OpenCausal
from deployments.replica.generate.writing import Scribe
from deployments.replica.prepared import note_prepared
from gateway.catalogs.catalog import load_catalog
from gateway.tasks.decoding import MOST_TOGETHER
from loadtests.bench.measuring.report import present
from loadtests.bench.measuring.rounds import WARM_UP, Slot, Turn, Turns
from loadtests.bench.writing import (
    AT_ONCE,
    BASELINE,
    LONGEST,
    MOST_ALONE,
    ONE_BY_ONE,
    TEXTS,
    TOGETHER,
    TRANSFORMERS,
    Apart,
    Run,
    Sample,
    Settings,
    Written,
    agreement,
    cautions,
    first_s,
    measure,
    median_s,
    prompts_of,
    reading,
    reading_share,
    report_of,
    served,
    slowest_s,
    targets,
    tokens_per_s,
    took_s,
    variant_of,
)
from loadtests.cli import bench
from loadtests.errors import EngineFailed, NoRace

SAID = "all is well with us"
TOKENS = 4


def sample(at_once: int, step_s: float, texts: int = TEXTS, said: str = SAID) -> Sample:
    """A turn whose texts each read for a step and write for three, one after another within a group."""
    group = tuple(Written(said, (1 + at) * step_s, (4 + at) * step_s) for at in range(at_once))
    return Sample((group,) * (texts // at_once), TOKENS)


def turns(*steps_s: float, contestants: tuple[str, ...] = (TOGETHER, ONE_BY_ONE, TRANSFORMERS)) -> Turns[Sample]:
    """A warm-up and a round for each duration of a step of one by one; texts together take 0.3 times as long."""
    shares = {TOGETHER: 0.3, ONE_BY_ONE: 1.0, TRANSFORMERS: 3.0}
    found = []
    for number, step_s in enumerate((9.0, *steps_s)):
        for load in AT_ONCE:
            for name in contestants:
                share = 1.0 if load == 1 and name == TOGETHER else shares[name]
                texts = load if number == WARM_UP else TEXTS
                found.append(Turn(Slot(number, load, name), sample(load, share * step_s, texts)))
    return Turns(tuple(found))


def a_run(taken: Turns[Sample], settings: Settings | None = None, left_out: str = "") -> Run:
    """A run of these turns."""
    names = tuple(dict.fromkeys(turn.slot.contestant for turn in taken.taken))
    read = tuple(range(20, 20 + TEXTS))
    settings = settings or Settings(rounds=2, tokens=TOKENS)
    return Run("scribbler", "onnx-fp32", "a host", settings, read, names, left_out, taken, 60.0)


def opened(folder: Path, engine: Scribbler) -> OpenCausal:
    """A variant over an engine by hand."""
    return OpenCausal(manifest(), engine, prompts(folder))


def test_the_figures_of_a_turn_agree() -> None:
    """Tokens are those of all texts, the time is that of all groups, and no text ends after the slowest."""
    found = sample(4, 0.5)
    assert len(found.written) == TEXTS and took_s(found) == 4 * 7 * 0.5
    assert tokens_per_s(found) * took_s(found) == pytest.approx(TEXTS * TOKENS)
    assert (first_s(found), median_s(found), slowest_s(found)) == (1.25, 2.75, 3.5)
    assert reading_share(sample(1, 0.5)) == 0.25


def test_a_gain_is_within_a_round_and_the_warm_up_does_not_count() -> None:
    """A slow round is slow for all contestants, and so changes no verdict."""
    gain, alone = targets(a_run(turns(0.1, 0.4)))
    assert gain.ratio is not None and gain.ratio.low == pytest.approx(1 / 0.3) == gain.ratio.high
    assert alone.ratio is not None and alone.ratio.median == 1 and gain.met and alone.met


def test_only_what_was_measured_has_a_verdict() -> None:
    """Without texts alone, or 8 at once, there is no target for them."""
    few = a_run(turns(0.1), Settings(at_once=(4, 16)))
    assert targets(few) == [] and report_of(few).met
    (alone,) = targets(a_run(turns(0.1), Settings(at_once=(1, 4))))
    assert alone.at_most and alone.bound == MOST_ALONE


def test_too_small_a_gain_is_a_missed_target() -> None:
    """A gain under the bound is told as missed, and the status is 1."""
    taken = turns(0.1)
    slow = Turns(
        tuple(replace(one, sample=sample(one.slot.load, 0.1)) if one.slot.round else one for one in taken.taken)
    )
    report = report_of(a_run(slow))
    assert present(report, Console(file=io.StringIO())) == 1
    assert [one.met for one in report.verdicts] == [False, True]
    assert report.verdicts[0].sentence.startswith(
        "tokens/s with 8 texts at once: at least 2.5 × one by one's: missed by 60%"
    )


def test_other_texts_are_counted() -> None:
    """A contestant that writes something else than one by one is told so, text by text."""
    same = a_run(turns(0.1, 0.2))
    all_equal = "32 of 32 at 1, 32 of 32 at 4, 32 of 32 at 8, 32 of 32 at 16"
    assert agreement(same).endswith(f": {TOGETHER} {all_equal}; {TRANSFORMERS} {all_equal}")
    odd = tuple(
        replace(turn, sample=sample(turn.slot.load, 0.1, said="else")) if turn.slot == Slot(1, 8, TOGETHER) else turn
        for turn in same.turns.taken
    )
    assert f": {TOGETHER} 32 of 32 at 1, 32 of 32 at 4, 16 of 32 at 8, 32 of 32 at 16; " in agreement(
        replace(same, turns=Turns(odd))
    )


def test_what_reading_takes_is_told_where_texts_alone_were_measured() -> None:
    """The share that no company shortens is that of one by one alone."""
    (said,) = reading(a_run(turns(0.1, 0.2)))
    assert said.startswith("25 (25 to 25) % of a text's time alone goes into reading its prompt")
    assert reading(a_run(Turns(()))) == []


def test_a_report_is_shown_and_written(tmp_path: Path) -> None:
    """A report has a row for each number at once and contestant, at the terminal and in its files."""
    report = report_of(a_run(turns(0.1, 0.2)))
    tokens, first = report.tables
    assert len(tokens.rows) == len(first.rows) == len(AT_ONCE) * 3
    assert tokens.rows[6][:4] == ["8", TOGETHER, "72.7 (48.5 to 97.0)", "3.33 (3.33 to 3.33)"]
    assert tokens.rows[7][:2] == ["", BASELINE] and tokens.rows[7][3] == "1"
    console = Console(width=100, file=(said := io.StringIO()))
    files = {kind: tmp_path / f"writing.{kind}" for kind in ("json", "md", "svg")}
    assert present(report, console, json=files["json"], markdown=files["md"], plot=files["svg"]) == 0
    for text in (" ".join(said.getvalue().split()), files["md"].read_text()):
        assert "scribbler onnx-fp32 on a host" in text and "16 texts of 20 to 35 tokens (median 27.5)" in text
        assert "tokens/s with 8 texts at once: at least 2.5 × one by one's: met by 33%" in text
        assert "the time of a text alone: at most 1.03 × one by one's: met by 3%" in text
    written = json.loads(files["json"].read_text())
    assert len(written["turns"]["taken"]) == 3 * len(AT_ONCE) * 3 and len(written["verdicts"]) == 2
    assert ElementTree.parse(files["svg"]).getroot().tag.endswith("svg")


def test_a_contestant_that_is_left_out_and_a_busy_machine_are_told() -> None:
    """Without transformers the others race, and a caution says why."""
    taken = turns(0.1, contestants=(TOGETHER, ONE_BY_ONE))
    busy = Turns(tuple(replace(one, sample=replace(one.sample, others=0.25)) for one in taken.taken))
    run = a_run(busy, left_out="torch is not installed")
    assert cautions(run) == [
        "transformers is left out: torch is not installed",
        "in the worst turn, the machine was not quiet: 25% of it was busy with something else",
    ]
    assert all(TRANSFORMERS not in row for table in report_of(run).tables for row in table.rows)


def test_texts_step_together_or_never(tmp_path: Path) -> None:
    """One contestant's texts share steps, the other's never do; both write the same texts, each to its last token."""
    texts = [f"{at}" for at in range(TEXTS)]
    companies = []
    for scribe in (Scribe, Apart):
        engine = Scribbler(FakeClock(), says_text(SAID))
        found = served(opened(tmp_path, engine), scribe, 9, texts, engine.clock)
        assert [one.text for one in found] == [SAID[:9]] * TEXTS
        assert all(0 < one.first_s <= one.ended_s for one in found)
        assert engine.steps == 9 * TEXTS
        companies.append(engine.companies)
    together, apart = companies
    assert 1 < max(together) <= MOST_TOGETHER and apart == []


def test_a_group_is_timed_from_its_own_start(tmp_path: Path) -> None:
    """Texts one at a time each take what a text alone takes, whatever went before."""
    engine = Scribbler(FakeClock(), says_text(SAID))
    for prompt in "abc":
        (one,) = served(opened(tmp_path, engine), Scribe, TOKENS, [prompt], engine.clock)
        assert one.ended_s == pytest.approx(engine.encode_s + (TOKENS - 1) * engine.step_s)


def test_an_engine_that_fails_ends_the_measurement(tmp_path: Path) -> None:
    """A text that fails is no result."""

    def failing(prompt: tuple[int, ...], written: tuple[int, ...]) -> int:
        raise ArithmeticError

    engine = Scribbler(FakeClock(), failing)
    with pytest.raises(EngineFailed, match="a text failed: engine ArithmeticError"):
        served(opened(tmp_path, engine), Apart, TOKENS, ["a", "b"], engine.clock)


def test_prompts_have_unlike_lengths_and_fit_into_the_window(tmp_path: Path) -> None:
    """Equal seeds give equal prompts; each leaves room for the new tokens."""
    variant = opened(tmp_path, Scribbler(FakeClock(), says_text(SAID)))
    texts = prompts_of(variant, Settings(tokens=8))
    lengths = [len(variant.prompts.of_text(text)) for text in texts]
    assert len(set(lengths)) > 4 and min(lengths) > 0 and max(lengths) <= min(LONGEST, WINDOW - 8)
    assert texts == prompts_of(variant, Settings(tokens=8)) != prompts_of(variant, Settings(tokens=8, seed=1))
    with pytest.raises(NoRace, match="the window of 64 tokens has no room for 64 new ones"):
        prompts_of(variant, Settings(tokens=WINDOW))


def test_a_name_means_a_prepared_variant_or_a_folder(tmp_path: Path) -> None:
    """A name is looked up among the prepared variants; one that is missing there is refused with what to do."""
    starter = load_catalog("starter")
    entry = starter.by_name("smollm2")
    assert entry is not None and variant_of("./there", starter, tmp_path) == Path("there")
    with pytest.raises(NoRace, match=r"smollm2 has no variant in .*; punctual prepare it"):
        variant_of("smollm2", starter, tmp_path)
    with pytest.raises(NoRace, match=r"starter is called 'gpt-9'; there are smollm2, .*bart-software, and folders"):
        variant_of("gpt-9", starter, tmp_path)
    write_variant(tmp_path / "variants" / "smollm2")
    note_prepared(tmp_path, entry, tmp_path / "variants" / "smollm2")
    assert variant_of("smollm2", starter, tmp_path) == tmp_path / "variants" / "smollm2"


def test_a_variant_that_does_not_write_on_is_refused(tmp_path: Path) -> None:
    """A classifier has no texts that could step together."""
    write_variant(tmp_path / "variant")
    with pytest.raises(NoRace, match="no checkpoint that writes"):
        measure(tmp_path / "variant", tmp_path, Settings(), Console(file=io.StringIO()))


def test_arguments_that_measure_nothing_are_refused() -> None:
    """Impossible arguments are refused at the command line, and the option is named."""
    for wrong in (["--rounds", "0"], ["--tokens", "0"], ["--at-once", "0"], ["--at-once", "17"]):
        refused = CliRunner().invoke(bench, ["writing", *wrong], env={"COLUMNS": "200"})
        assert refused.exit_code == 2 and wrong[0] in refused.output

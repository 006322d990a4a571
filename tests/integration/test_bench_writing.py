"""The race of texts that step together over a real, tiny checkpoint: only the laws mean something, and no figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from byte_prompts import manifest
from small_causal import make_causal_checkpoint
from small_seq2seq import make_seq2seq_checkpoint
from typer.testing import CliRunner

from exporters.export import export
from exporters.plan import Settings, VariantPlan
from exporters.sources.source import resolve_source
from gateway.model.manifest import Precision, SourceOf
from loadtests.bench.writing import BEFORE, ONE_BY_ONE, TEXTS, TOGETHER, TRANSFORMERS, peer_of
from loadtests.cli import bench

pytestmark = pytest.mark.export
TOKENS, AT_ONCE, ROUNDS = 6, (1, 8), 1


@pytest.fixture(scope="module")
def variant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A variant in fp32, whose source is beside it."""
    root = tmp_path_factory.mktemp("writer")
    source = make_causal_checkpoint(root / "source")
    plan = VariantPlan("small", "generate", "Llama", "onnx", Precision.FP32)
    brief = Settings(profile_budget_s=0.05)
    export(plan, resolve_source(str(source)), root / "variant", lambda step, share: None, brief)
    return root / "variant"


def test_all_contestants_write_the_same_tokens(variant: Path, tmp_path: Path) -> None:
    """In fp32, texts together, one by one and by transformers in a padded batch are equal, to the last token.

    The command prints tables and verdicts, and its files hold every turn with as many tokens as were asked for.
    """
    asked = ["--tokens", str(TOKENS), "--rounds", str(ROUNDS), *(f"--at-once={number}" for number in AT_ONCE)]
    files = [part for kind in ("json", "markdown", "svg") for part in (f"--{kind}", str(tmp_path / f"race.{kind}"))]
    done = CliRunner().invoke(bench, ["writing", "--checkpoint", str(variant), *asked, *files], env={"COLUMNS": "200"})
    assert done.exit_code in (0, 1), done.output  # the gain on such a model is no law
    equal = ", ".join(f"{TEXTS * ROUNDS} of {TEXTS * ROUNDS} at {number}" for number in AT_ONCE)
    said = f"texts equal to those of {ONE_BY_ONE}, by number at once: {TOGETHER} {equal}; {TRANSFORMERS} {equal}"
    for text in (" ".join(done.output.split()), (tmp_path / "race.markdown").read_text()):
        assert said in text, text
        assert "tokens/s with 8 texts at once: at least 2.5 ×" in text and "the time of a text alone: at most" in text
    written = json.loads((tmp_path / "race.json").read_text())
    assert written["left_out"] == "" and len(set(written["prompt_tokens"])) > 4
    turns = written["turns"]["taken"]
    assert len(turns) == 3 * len(AT_ONCE) * (1 + ROUNDS)
    for turn in (one for one in turns if one["slot"]["round"]):
        groups, sample = turn["sample"]["groups"], turn["sample"]
        assert [len(group) for group in groups] == [turn["slot"]["load"]] * (TEXTS // turn["slot"]["load"])
        assert sample["tokens"] == TOKENS
        assert all(0 < one["first_s"] <= one["ended_s"] for group in groups for one in group)
    assert (tmp_path / "race.svg").stat().st_size > 0


@pytest.mark.parametrize(("family", "beams"), [("bart", 1), ("t5", 2)])
def test_summaries_of_all_contestants_are_equal(tmp_path: Path, family: str, beams: int) -> None:
    """In fp32, summaries together, one by one, by a variant of before and by transformers are equal, with any beams."""
    source = make_seq2seq_checkpoint(tmp_path / "source", family)
    plan = VariantPlan("small", "summarize", family, "onnx", Precision.FP32)
    brief = Settings(profile_budget_s=0.05)
    export(plan, resolve_source(str(source)), tmp_path / "variant", lambda step, share: None, brief)
    folder = str(tmp_path / "variant")
    asked = ["--tokens", str(TOKENS), "--rounds", "1", "--at-once", "8", "--beams", str(beams), "--before", folder]
    done = CliRunner().invoke(bench, ["writing", "--checkpoint", folder, *asked], env={"COLUMNS": "200"})
    assert done.exit_code in (0, 1), done.output  # the gain on such a model is no law
    equal = f"{TEXTS} of {TEXTS} at 8"
    said = f"{TOGETHER} {equal}; {BEFORE} {equal}; {TRANSFORMERS} {equal}"
    assert said in " ".join(done.output.split()), done.output


def test_without_its_own_source_transformers_is_left_out(tmp_path: Path) -> None:
    """A source that is missing, or not that of the variant, is not raced against; the reason names it."""
    source = SourceOf(location=str(make_causal_checkpoint(tmp_path / "source")), revision="", sha256="0" * 64)
    changed = peer_of(manifest().model_copy(update={"source": source}), tmp_path)
    assert changed == f"{source.location} has changed since the variant was made"
    gone = source.model_copy(update={"location": str(tmp_path / "gone")})
    missing = peer_of(manifest().model_copy(update={"source": gone}), tmp_path)
    assert isinstance(missing, str) and str(tmp_path / "gone") in missing

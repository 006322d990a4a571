"""The contract of the engine that OpenVINO runs: ONNX Runtime's answers, its own threads, and a way out without it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from small_variants import WINDOW, weights, write_graph, write_variant

from deployments.engines.base import padded
from deployments.replica.classify import open_classifier

pytest.importorskip("openvino", reason="OpenVINO is an extra: pip install 'punctual[openvino]'")

from deployments.engines.openvino import OpenVinoEngine

ROOT = Path(__file__).parents[4]
ROWS = [[2, 6, 5, 3], [2, 7, 3]]
BF16 = 0.02
"""The most that a sum of rows may be off in bf16, which has 8 bits, as a share of the largest weight."""


def expected(rows: list[list[int]]) -> np.ndarray:
    """What the small graph computes of rows."""
    return np.stack([weights()[row].sum(axis=0) for row in rows])


@pytest.mark.parametrize("extra", [None, "token_type_ids"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_padded_row_gets_its_own_logits(tmp_path: Path, extra: str | None, threads: int) -> None:
    """Padding never changes a row's logits beyond the rounding of bf16, and token types are zero where wanted."""
    write_graph(tmp_path / "model.onnx", extra)
    batch = padded(ROWS, pad_id=1)
    engine = OpenVinoEngine.open(tmp_path / "model.onnx", threads, 1, WINDOW)
    logits = engine.run(batch.token_ids, batch.attention_mask)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected(ROWS), atol=BF16 * np.abs(weights()).max() * 4)


@pytest.mark.parametrize(("threads", "at_once"), [(1, 1), (1, 2), (2, 1)])
def test_an_engine_has_the_threads_that_it_was_given(tmp_path: Path, threads: int, at_once: int) -> None:
    """An engine has as many threads as its runs at a time need, not as many as the machine has cores."""
    write_graph(tmp_path / "model.onnx")
    assert OpenVinoEngine.open(tmp_path / "model.onnx", threads, at_once, WINDOW).threads == threads * at_once


def test_answers_of_concurrent_runs_are_not_mixed_up(tmp_path: Path) -> None:
    """Each of several threads that run one engine gets the answers to its own rows, also where some must wait."""
    write_graph(tmp_path / "model.onnx")
    engine = OpenVinoEngine.open(tmp_path / "model.onnx", 1, 2, WINDOW)
    wrong: list[int] = []

    def ask(token: int) -> None:
        row = np.full((1, 3), token, dtype=np.int64)
        for _ in range(50):
            logits = engine.run(row, np.ones_like(row))
            if not np.allclose(logits, expected([[token] * 3]), atol=0.2):
                wrong.append(token)

    callers = [threading.Thread(target=ask, args=(token,)) for token in range(4, 8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_rows_are_never_widened_past_the_window(tmp_path: Path) -> None:
    """A row of a window that is no multiple of eight keeps its length, since the graph knows no further positions."""
    write_graph(tmp_path / "model.onnx")
    engine = OpenVinoEngine.open(tmp_path / "model.onnx", 1, 1, 3)
    row = np.array([[2, 6, 3]], dtype=np.int64)
    assert np.allclose(engine.run(row, np.ones_like(row)), expected([[2, 6, 3]]), atol=0.2)


def test_a_graph_that_wants_more_is_refused_as_it_is_opened(tmp_path: Path) -> None:
    """A graph with an input that the engine cannot give is refused by name when it is opened, not at a request."""
    write_graph(tmp_path / "model.onnx", "pixel_values")
    with pytest.raises(ValueError, match="pixel_values"):
        OpenVinoEngine.open(tmp_path / "model.onnx", 1, 1, WINDOW)


OPENED = """
import logging, socket, sys
from pathlib import Path
logging.basicConfig(level=logging.WARNING, format="%(message)s")
def refuse(*arguments, **more):
    raise AssertionError("an engine reaches no network")
socket.socket.connect = refuse
from deployments.replica.classify import open_classifier
opened = open_classifier(Path(sys.argv[1]), 1)
print(type(opened.engine).__name__)
"""


def opened(folder: Path, *first: Path) -> tuple[str, str]:
    """The class of the engine that a new process opens for a variant, and its messages."""
    search = os.pathsep.join([*map(str, first), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", OPENED, str(folder)],
        env=os.environ | {"PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip(), done.stderr


@pytest.fixture
def variant(tmp_path: Path) -> Path:
    """A variant whose manifest names OpenVINO."""
    folder = tmp_path / "variant"
    write_variant(folder, engine="openvino")
    return folder


def test_a_variant_is_opened_by_openvino_without_a_network(variant: Path) -> None:
    """A replica opens a variant of OpenVINO's, checks its golden answers, and reaches no network for it."""
    engine, said = opened(variant)
    assert engine == "OpenVinoEngine" and "cannot be loaded" not in said


@pytest.mark.parametrize("fault", ["raise ImportError('no such library')", "raise RuntimeError('no such processor')"])
def test_onnx_runtime_takes_over_where_openvino_cannot_be_loaded(variant: Path, tmp_path: Path, fault: str) -> None:
    """Where OpenVINO cannot be loaded, ONNX Runtime runs its graph, the golden answers hold, and one line says so."""
    broken = tmp_path / "broken"
    (broken / "openvino").mkdir(parents=True)
    (broken / "openvino" / "__init__.py").write_text(fault)
    engine, said = opened(variant, broken)
    assert engine == "OnnxEngine"
    assert said.count("OpenVINO cannot be loaded") == 1 and "by-hand" in said and "no such" in said


def test_the_engine_that_takes_over_is_said(
    variant: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without OpenVINO's library the same variant is opened by ONNX Runtime, with one warning that names it."""
    monkeypatch.setitem(sys.modules, "deployments.engines.openvino", None)
    assert type(open_classifier(variant, 1).engine).__name__ == "OnnxEngine"
    assert [record.getMessage() for record in caplog.records if "OpenVINO cannot be loaded" in record.getMessage()]

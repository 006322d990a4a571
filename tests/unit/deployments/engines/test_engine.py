"""Laws of the engines that need no checkpoint: what the graph is given, and what is known of the host."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from small_variants import weights, write_graph

from deployments.engines.base import padded
from deployments.engines.host import Host, read_host
from deployments.engines.onnx import OnnxEngine

ROWS = [[2, 6, 5, 3], [2, 7, 3]]


@pytest.mark.parametrize("extra", [None, "token_type_ids"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_padded_row_gets_its_own_logits(tmp_path: Path, extra: str | None, threads: int) -> None:
    """Padding never changes a row's logits, and token types are zero where the graph takes them."""
    write_graph(tmp_path / "model.onnx", extra)
    batch = padded(ROWS, pad_id=1)
    logits = OnnxEngine.open(tmp_path / "model.onnx", threads).run(batch.token_ids, batch.attention_mask)
    expected = np.stack([weights()[row].sum(axis=0) for row in ROWS])
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_a_lone_engine_gives_the_same_logits(tmp_path: Path) -> None:
    """An engine whose helpers spin during a run, kept off the caller's processor, computes the same."""
    write_graph(tmp_path / "model.onnx", None)
    batch = padded(ROWS, pad_id=1)
    allowed, before = os.sched_getaffinity(0), set(os.listdir("/proc/self/task"))
    lone = OnnxEngine.open(tmp_path / "model.onnx", 2, lone=True)
    helpers = [int(thread) for thread in set(os.listdir("/proc/self/task")) - before]
    usual = OnnxEngine.open(tmp_path / "model.onnx", 1)
    for _ in range(3):
        given = (batch.token_ids, batch.attention_mask)
        np.testing.assert_array_equal(lone.run(*given), usual.run(*given))
    assert os.sched_getaffinity(0) == allowed, "the caller may run anywhere"
    if len(allowed) > 1:
        assert {len(os.sched_getaffinity(helper)) for helper in helpers} == {len(allowed) - 1}


@pytest.mark.parametrize("extra", [None, "token_type_ids"])
def test_token_types_reach_a_graph_that_takes_them(tmp_path: Path, extra: str | None) -> None:
    """Token types are padded with 0 and given to a graph that takes them; another is not asked."""
    write_graph(tmp_path / "model.onnx", extra)
    types = [[0, 0, 1, 1], []]
    batch = padded(ROWS, 1, types)
    assert batch.token_types is not None and batch.token_types.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert padded(ROWS, 1, [[], [0, 0, 0]]).token_types is None
    logits = OnnxEngine.open(tmp_path / "model.onnx", 1).run(batch.token_ids, batch.attention_mask, batch.token_types)
    taken = [[2, 6, 6, 4], ROWS[1]] if extra else ROWS  # this graph adds types to ids
    np.testing.assert_allclose(logits, np.stack([weights()[row].sum(axis=0) for row in taken]), rtol=1e-5)


def test_a_graph_that_wants_more_is_refused_as_it_is_opened(tmp_path: Path) -> None:
    """A graph with an input that the engine cannot give is refused by name when it is opened, not at a request."""
    write_graph(tmp_path / "model.onnx", "pixel_values")
    with pytest.raises(ValueError, match="pixel_values"):
        OnnxEngine.open(tmp_path / "model.onnx", 1)


def test_padding_fills_on_the_right_with_the_given_id() -> None:
    """Padding fills rows on the right with the given id, and the mask is one exactly on a row's own tokens."""
    batch = padded(ROWS, pad_id=9)
    assert batch.token_ids.tolist() == [[2, 6, 5, 3], [2, 7, 3, 9]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]


def test_an_intel_or_amd_host_is_read_by_its_flags(tmp_path: Path) -> None:
    """The kind of an Intel or AMD host is read from its flags, since generations may bear one name."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\ncpu family\t: 25\nmodel\t: 17\nmodel name\t: AMD EPYC\nflags\t: fpu avx_vnni\n")
    host = read_host(cpuinfo)
    assert host.kind.startswith("AMD EPYC (family 25 model 17), ")
    assert host.dot_product == "avx_vnni"


def test_an_arm_host_is_read_by_its_features(tmp_path: Path) -> None:
    """The kind of an ARM host is read from `Features`, since ARM names no model."""
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0c\n")
    assert read_host(cpuinfo).dot_product == "asimddp"


def test_a_host_without_dot_products_says_so() -> None:
    """A host without int8 dot products says so, even if it has AVX-512."""
    assert Host("old", 4, frozenset({"avx2", "avx512f"})).dot_product is None


def test_a_system_without_cpuinfo_is_still_a_host(tmp_path: Path) -> None:
    """A host without /proc/cpuinfo still has a kind for its exports to name."""
    assert read_host(tmp_path / "none").kind

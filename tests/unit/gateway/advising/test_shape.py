"""The counts of a shape: near what is published, and rising with what they count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.advising.knowledge import knowledge
from gateway.advising.shape import PROCESS_BYTES, Shape
from gateway.model.manifest import Precision

PUBLISHED = {
    "bert-base-uncased": 110e6,
    "roberta-base": 125e6,
    "distilbert-base-uncased": 66e6,
    "albert-base-v2": 12e6,
    "electra-small": 14e6,
    "electra-large": 335e6,
    "xlm-roberta-base": 270e6,
    "mobilebert-uncased": 25.3e6,
    "camembert-base": 110e6,
    "longformer-base-4096": 149e6,
    "tinybert-4l": 14.5e6,
    "gpt2": 124e6,
    "distilgpt2": 82e6,
    "ctrl": 1.63e9,
    "t5-small": 60e6,
    "t5-base": 220e6,
    "bart-base": 139e6,
    "bart-large": 406e6,
    "distilbart-6-6": 230e6,
    "distilbart-12-6": 306e6,
    "pegasus-large": 568e6,
    "opus-mt-en-de": 74e6,
}
"""Parameters by the papers and model cards."""

SMALL = st.integers(1, 8)
SHAPES = st.builds(
    Shape,
    layers=SMALL,
    decoder_layers=st.integers(0, 4),
    width=st.sampled_from((8, 64, 384)),
    inner=st.sampled_from((8, 256, 1536)),
    heads=st.sampled_from((1, 4)),
    vocabulary=st.integers(10, 30_000),
    window=st.integers(16, 4096),
)


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items())
def test_parameters_are_counted_as_published(name: str, published: float) -> None:
    """The count of a known shape is within 8 % of what its paper or card says."""
    assert knowledge().named(name).shape.count == pytest.approx(published, rel=0.08)


@given(SHAPES, SMALL, st.integers(1, 512))
def test_more_work_never_takes_less(shape: Shape, batch: int, tokens: int) -> None:
    """A larger batch or a longer text has no fewer operations, and no fewer bytes to run or to train."""
    for more in ((batch + 1, tokens), (batch, tokens + 1)):
        assert shape.operations(*more) > shape.operations(batch, tokens)
        assert shape.running_bytes(*more) > shape.running_bytes(batch, tokens)
        assert shape.fine_tune_bytes(*more) > shape.fine_tune_bytes(batch, tokens)


@given(SHAPES, st.integers(1, 512))
def test_fine_tuning_takes_more_than_its_state(shape: Shape, tokens: int) -> None:
    """Fine-tuning takes 16 bytes a parameter and what is kept; serving takes the process and the weights at least."""
    assert shape.fine_tune_bytes(1, tokens) > 16 * shape.count
    assert shape.serve_bytes(Precision.FP32, 1, tokens) > PROCESS_BYTES + 4 * shape.count
    assert shape.serve_bytes(Precision.INT8, 1, tokens) < shape.serve_bytes(Precision.FP32, 1, tokens)


def test_kept_activations_are_those_of_the_source() -> None:
    """In 16 bits and with an inner width of four times the width, the count is `s b h (34 + 5 a s / h)` a layer."""
    width, heads, tokens, batch = 768, 12, 512, 4
    shape = Shape(layers=1, width=width, inner=4 * width, heads=heads, vocabulary=1000, window=tokens)
    values = batch * tokens * (16 * width + 2 * heads * tokens)  # without masks, in values
    masks = batch * tokens * (2 * width + heads * tokens)
    assert 2 * values + masks == tokens * batch * width * (34 + 5 * heads * tokens / width)
    assert shape.kept_bytes(batch, tokens) == 4 * values + masks


def test_what_is_written_is_kept_too() -> None:
    """Training keeps more the more is written; the logits alone are two values a token and word of the vocabulary."""
    known = knowledge()
    writer, decoder = known.named("bart-large").shape, known.named("gpt2").shape
    assert decoder.kept_bytes(4, 64, 64) - decoder.kept_bytes(4, 64) == 4 * 64 * decoder.vocabulary * 8
    few, many = writer.fine_tune_bytes(4, 512, 30), writer.fine_tune_bytes(4, 512, 60)
    assert writer.fine_tune_bytes(4, 512) < few < many
    assert writer.fine_tune_bytes(4, 512, 60) < writer.fine_tune_bytes(4, 512, 512)


def test_a_window_of_attention_makes_long_texts_linear() -> None:
    """Twice the tokens beyond the attention's window take twice the operations, where full attention takes more."""
    known = knowledge()
    long = known.named("longformer-base-4096").shape
    full = long.model_copy(update={"attention_window": None})
    assert long.operations(1, 4096) == 2 * long.operations(1, 2048)
    assert full.operations(1, 4096) > 2 * full.operations(1, 2048)


def test_shared_layers_save_memory_and_no_time() -> None:
    """ALBERT has a tenth of BERT's parameters and all of its operations."""
    known = knowledge()
    bert, albert = known.named("bert-base-uncased").shape, known.named("albert-base-v2").shape
    assert albert.count * 9 < bert.count
    assert albert.operations(1, 128) == bert.operations(1, 128)

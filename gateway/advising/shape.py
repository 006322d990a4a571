"""The shape of a transformer, and what follows from it: parameters, operations, and bytes to serve and to fine-tune.

It knows no measured time, and no checkpoint by name.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gateway.model.manifest import Precision

BYTES_OF: dict[Precision, float] = {
    Precision.FP32: 4.0,
    Precision.BF16: 2.0,
    Precision.INT8: 1.0,
    Precision.INT8_WEIGHTS: 1.2,
}
"""Bytes of a stored parameter. `int8-weights` keeps embeddings in fp32 and has a scale for each block; a starter
checkpoint of 109 M parameters has a variant of 131 MB."""

COMPUTED_BYTES = 4
"""Bytes of an activation: int8 variants quantise what goes into a matrix and keep what comes out in fp32."""

PROCESS_BYTES = 240_000_000
"""What a replica takes beside weights and activations: Python, Ray, ONNX Runtime, the tokenizer. Measured by this
project, docs/performance.md: a variant of 14 MB is a replica of 252 MB, one of 19 MB is one of 266."""

HELD_BY_WRITERS = 3.0
"""Bytes that an encoder-decoder takes for each byte of its weights: its decoder is in two graphs, each with the table
of the vocabulary. Measured by this project: in int8 229 M parameters are a process of 818 MB, 569 M one of 1,847."""

TRAINING_BYTES = 16
"""Bytes of a parameter in training by Adam: weight, gradient and two moments, in fp32 each. Rajbhandari et al., ZeRO,
SC 2020, section 3.1, count as many for mixed precision."""

TRAINER_BYTES = 540_000_000
"""What fine-tuning takes beside weights, their state and activations: Python, PyTorch and transformers (390 MB), and
what the backward pass loads and the allocator holds. Measured by this project, `punctual bench checkpoints`: TinyBERT,
MiniLM, ELECTRA-small and DistilBERT took 100 to 220 MB more than the formula, T5-small and DistilGPT-2 90 to 150
less."""

Size = Annotated[int, Field(ge=1)]

SIZE_CLASSES = ((30e6, "tiny"), (90e6, "small"), (300e6, "base"), (700e6, "large"))
"""Parameters up to which a checkpoint is of a class, beyond them huge. Set by hand: BERT-base, XLM-R-base and T5-base
are base, DistilBERT is small, TinyBERT and MobileBERT are tiny, BERT-large and BART-large are large."""


class Shape(BaseModel):
    """The sizes of an architecture: those of the fields of its `config.json`, under one name each.

    `layers` are the encoder's, or a decoder's that stands alone. `window` is the most tokens of one input.
    `layer_parameters` and `parameters` replace the count of a plain transformer where it does not hold.
    `relative_time` is the time of a run divided by that of a plain transformer of as many operations.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: Size
    width: Size
    inner: Size
    heads: Size
    vocabulary: Size
    window: Size
    decoder_layers: int = Field(default=0, ge=0)
    embedding: Size | None = None
    shared: bool = False
    attention_window: Size | None = None
    layer_parameters: Size | None = None
    parameters: Size | None = None
    relative_time: float = Field(default=1.0, gt=0)

    @property
    def per_layer(self) -> int:
        """Parameters of the matrices of a layer: four of attention, two of the feed-forward part."""
        return self.layer_parameters or self.width * (4 * self.width + 2 * self.inner)

    @property
    def per_decoder_layer(self) -> int:
        """Likewise of a decoder's layer behind an encoder, which attends to that too."""
        return self.per_layer + 4 * self.width**2

    @property
    def count(self) -> int:
        """Parameters in all; biases and norms, under 1 %, are left out."""
        if self.parameters is not None:
            return self.parameters
        embedding = self.embedding or self.width
        table = self.vocabulary * embedding + self.window * embedding
        table += embedding * self.width if embedding != self.width else 0
        layers = self.per_layer * (1 if self.shared else self.layers)
        return table + layers + self.decoder_layers * self.per_decoder_layer

    @property
    def size_class(self) -> str:
        """Tiny, small, base, large or huge."""
        return next((name for most, name in SIZE_CLASSES if self.count <= most), "huge")

    def operations(self, batch: int, tokens: int) -> float:
        """Multiply-adds to read a batch: every token meets every matrix, and attends to the tokens it sees."""
        seen = min(tokens, self.attention_window or tokens)
        return float(batch * tokens * self.layers * (self.per_layer + 2 * seen * self.width))

    @property
    def step_parameters(self) -> int:
        """Parameters that the writing of one token reads: the decoder's, and the table of the vocabulary.

        A step of few rows waits for its weights to come from memory, so its time goes by their number.
        """
        layers = self.decoder_layers * self.per_decoder_layer or self.layers * self.per_layer
        return layers + self.vocabulary * self.width

    def weight_bytes(self, precision: Precision) -> float:
        """Bytes of the weights."""
        return self.count * BYTES_OF[precision]

    def running_bytes(self, batch: int, tokens: int) -> float:
        """Bytes of the activations of a run: those of one layer at a time, since none is kept.

        The layer's input, queries, keys, values and output are of the width; beside them stand the larger of the
        attention's scores and the feed-forward part's inside.
        """
        seen = min(tokens, self.attention_window or tokens)
        inside = max(self.inner, self.heads * seen)
        return float(COMPUTED_BYTES * batch * tokens * (5 * self.width + inside))

    def serve_bytes(self, precision: Precision, batch: int, tokens: int) -> float:
        """Bytes of a replica: its process, the weights, and the activations of its largest run."""
        held = HELD_BY_WRITERS if self.decoder_layers else 1.0
        return PROCESS_BYTES + held * self.weight_bytes(precision) + self.running_bytes(batch, tokens)

    def kept_bytes(self, batch: int, tokens: int, written: int = 0) -> float:
        """Bytes of the activations that a training step in fp32 keeps for the backward pass.

        Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, MLSys 2023, section 4.1: a
        layer keeps `s b h (34 + 5 a s / h)` bytes in 16 bits, for s tokens, b texts, width h and a heads. Here in fp32
        and with any inner width: 8 values of the width and 2 of the inner width a token, 2 values a score of the
        attention, and the masks of dropout in one byte each. Of `written` tokens a decoder behind an encoder keeps as
        much and the attention to the text, and each has its logits over the vocabulary, and their gradients.
        """
        seen = min(tokens, self.attention_window or tokens)
        own = COMPUTED_BYTES * (8 * self.width + 2 * self.inner) + 2 * self.width
        score = self.heads * (2 * COMPUTED_BYTES + 1)
        read = tokens * self.layers * (own + score * seen)
        crossed = COMPUTED_BYTES * 4 * self.width + score * tokens
        decoded = written * self.decoder_layers * (own + score * written + crossed)
        logits = written * self.vocabulary * 2 * COMPUTED_BYTES
        return float(batch * (read + decoded + logits))

    def fine_tune_bytes(self, batch: int, tokens: int, written: int = 0) -> float:
        """Bytes to fine-tune all parameters in fp32 by Adam: weights, gradients, moments and kept activations."""
        return TRAINING_BYTES * self.count + self.kept_bytes(batch, tokens, written)

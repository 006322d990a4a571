"""Exports the later steps of an encoder-decoder as a graph whose rows may be unequally far, and of several texts.

The layers are transformers' own, with their attention replaced: keys and values of earlier tokens stand in a buffer in
the place of their position, so that the mask of a row, and T5's relative bias, follow from its position alone. The
graph gives the keys and values of the new token only. Sources stand in pages, so that none is padded to the longest. In
cross-attention the rows of a text are the queries of one product with each of its pages, which is read once for all
beams.

optimum's graph knows one length of past for all rows. Families without an entry in `DECODERS` keep it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import nn

from deployments.engines.base import NEXT_STEP_FILE, Decoder, Logits, Pending, TokenIds
from deployments.engines.onnx import INPUT_IDS, LOGITS
from deployments.engines.onnx_seq2seq import ENCODER_MASK, PAST, OnnxSeq2Seq, present_of
from deployments.engines.shared_past import PLACES, POSITIONS, SLOTS
from exporters.errors import ExportFailed
from exporters.kinds.original import Original
from exporters.kinds.shapes import batches_of, prove_shapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OPSET = 17
PARTS = ("decoder.key", "decoder.value", "encoder.key", "encoder.value")
"""Keys and values of a layer, as optimum names them."""

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]


@dataclass
class _Step:
    """What a step's attention takes, and the keys and values that it makes.

    `own_bias` is (rows, heads or 1, 1, past + 1), `cross_bias` (pages, 1, 1, page). `places` (pages, beams) has the
    rows of each page's text, `slots` (rows, pages of a text) where a row stands in it, and `slot_bias` (rows, pages of
    a text, 1, 1) hides the slots of texts with fewer pages.
    """

    own: list[Pair]
    cross: list[Pair]
    places: torch.Tensor
    slots: torch.Tensor
    own_bias: torch.Tensor
    cross_bias: torch.Tensor
    slot_bias: torch.Tensor
    made: list[Pair] = field(default_factory=list)


class _Projections(nn.Module):
    """The matrices of an attention: that which goes in, of queries alone or of keys and values too, and the one out."""

    def __init__(self, into: Sequence[Any], out: Any, heads: int, scaling: float) -> None:
        """Takes the matrices of queries, and if any of keys and values; they become one, which multiplies quicker."""
        super().__init__()
        query, *others = into
        self.into = nn.Linear(query.in_features, sum(one.out_features for one in into), bias=query.bias is not None)
        with torch.no_grad():
            self.into.weight.copy_(torch.cat([query.weight * scaling, *(one.weight for one in others)]))
            if query.bias is not None:
                self.into.bias.copy_(torch.cat([query.bias * scaling, *(one.bias for one in others)]))
        self.out = out
        self.heads = heads
        self.width = int(query.out_features) // heads


class _Attention(nn.Module):
    """Attention with one query a row. It takes its layer's keys and values from the step under way."""

    def __init__(self, projections: _Projections, layer: int, steps: list[_Step], *, cross: bool) -> None:
        super().__init__()
        self._by = projections
        self._layer = layer
        self._steps = steps
        self._attend = self._to_source if cross else self._to_own

    def forward(self, hidden_states: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, None]:
        """The layer's attention (rows, 1, width), and no weights."""
        return self._by.out(self._attend(self._by.into(hidden_states), self._steps[-1])), None

    def _to_own(self, hidden: torch.Tensor, step: _Step) -> torch.Tensor:
        """Attends to the row's earlier tokens and to its new one, which are never put together."""
        heads, width = self._by.heads, self._by.width
        query, key, value = hidden.reshape(-1, 3 * heads, 1, width).split(heads, dim=1)
        step.made.append((key, value))
        keys, values = step.own[self._layer]
        scores = torch.cat([query @ keys.transpose(2, 3), (query * key).sum(3, keepdim=True)], dim=3) + step.own_bias
        weights = scores.softmax(3)
        found: torch.Tensor = weights[..., :-1] @ values + weights[..., -1:] * value
        return found.reshape(-1, 1, heads * width)

    def _to_source(self, hidden: torch.Tensor, step: _Step) -> torch.Tensor:
        """Attends to the row's source: all rows of a text to each of its pages, then each row's pages are put together.

        A page's greatest score is taken off its scores, as softmax does; between pages that is made good.
        """
        heads, width = self._by.heads, self._by.width
        keys, values = step.cross[self._layer]
        query = hidden.reshape(-1, heads, width)[step.places].transpose(1, 2)
        scores = query @ keys.transpose(2, 3) + step.cross_bias
        tops = scores.amax(3, keepdim=True)
        weights = (scores - tops).exp()
        parts = torch.cat([weights @ values, weights.sum(3, keepdim=True), tops], dim=3)
        of_rows = parts.transpose(1, 2).reshape(-1, heads, width + 2)[step.slots]
        found, sums, tops = of_rows.split([width, 1, 1], dim=3)
        tops = tops + step.slot_bias
        shares = (tops - tops.amax(1, keepdim=True)).exp()
        together: torch.Tensor = (shares * found).sum(1) / (shares * sums).sum(1)
        return together.reshape(-1, 1, heads * width)


class _Decoder(nn.Module, ABC):
    """The later step of a family: embeds tokens at their positions, runs the layers, computes logits."""

    def __init__(self, model: Any, decoder: Any) -> None:
        super().__init__()
        self.model = model
        self.decoder = decoder
        self.steps: list[_Step] = []

    @abstractmethod
    def attentions(self) -> Iterator[tuple[Any, str, _Projections, bool]]:
        """Each attention in the order of layers, own before cross: its holder, its name there, and what it is."""

    @abstractmethod
    def bias(self, positions: torch.Tensor, past: int) -> torch.Tensor:
        """What is added to the scores of the past (rows, heads or 1, 1, past) and of the new token, by positions."""

    @abstractmethod
    def run(self, ids: torch.Tensor, positions: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Logits (rows, 1, vocabulary). `states` only say that there is a source."""

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        places: torch.Tensor,
        slots: torch.Tensor,
        mask: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Logits, and the new token's keys and values by layer. `past` is in the order of `PARTS`, by layer."""
        layers = [past[at : at + len(PARTS)] for at in range(0, len(past), len(PARTS))]
        lowest = torch.finfo(torch.float32).min
        step = _Step(
            own=[(one[0], one[1]) for one in layers],
            cross=[(one[2], one[3]) for one in layers],
            places=places,
            slots=slots.clamp(min=0),
            own_bias=self.bias(positions, past[0].shape[2]),
            cross_bias=((1 - mask).to(torch.float32) * lowest)[:, None, None],
            slot_bias=((slots < 0).to(torch.float32) * lowest)[:, :, None, None],
        )
        self.steps.append(step)
        logits = self.run(ids, positions, past[2])
        return (logits, *(one for pair in step.made for one in pair))


def _unseen(positions: torch.Tensor, past: int) -> torch.Tensor:
    """The bias (rows, 1, 1, past + 1) that hides places from a row's position on, but not the new token."""
    lowest = torch.finfo(torch.float32).min
    hidden = (torch.arange(past)[None] >= positions[:, None]).to(torch.float32) * lowest
    return nn.functional.pad(hidden, (0, 1))[:, None, None]


class _BartLike(_Decoder):
    """BART, mBART, Pegasus and Marian: positions from a table, learned or sinusoidal."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.model.decoder)

    def attentions(self) -> Iterator[tuple[Any, str, _Projections, bool]]:
        for layer in self.decoder.layers:
            for name, cross in (("self_attn", False), ("encoder_attn", True)):
                one = getattr(layer, name)
                into = [one.q_proj] if cross else [one.q_proj, one.k_proj, one.v_proj]
                yield layer, name, _Projections(into, one.out_proj, one.num_heads, one.scaling), cross

    def bias(self, positions: torch.Tensor, past: int) -> torch.Tensor:
        return _unseen(positions, past)

    def run(self, ids: torch.Tensor, positions: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        decoder, table = self.decoder, self.decoder.embed_positions
        hidden = decoder.embed_tokens(ids) * getattr(decoder, "embed_scale", 1.0)
        hidden = hidden + nn.functional.embedding(positions + getattr(table, "offset", 0), table.weight)[:, None]
        first = getattr(decoder, "layernorm_embedding", None)
        hidden = hidden if first is None else first(hidden)
        for layer in decoder.layers:
            (hidden,) = layer(hidden, encoder_hidden_states=states, use_cache=False)
        last = getattr(decoder, "layer_norm", None)
        hidden = hidden if last is None else last(hidden)
        logits: torch.Tensor = self.model.lm_head(hidden) + self.model.final_logits_bias
        return logits


class _T5Like(_Decoder):
    """T5 and mT5: the first layer's table of relative positions biases all of them."""

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.decoder)
        self._table = model.decoder.block[0].layer[0].SelfAttention  # replaced later, with its table

    def attentions(self) -> Iterator[tuple[Any, str, _Projections, bool]]:
        for block in self.decoder.block:
            for holder, name, cross in (
                (block.layer[0], "SelfAttention", False),
                (block.layer[1], "EncDecAttention", True),
            ):
                one = getattr(holder, name)
                into = [one.q] if cross else [one.q, one.k, one.v]
                yield holder, name, _Projections(into, one.o, one.n_heads, 1.0), cross

    def bias(self, positions: torch.Tensor, past: int) -> torch.Tensor:
        table = self._table
        away = nn.functional.pad(torch.arange(past)[None] - positions[:, None], (0, 1))  # the new token's is 0
        buckets = table._relative_position_bucket(
            away,
            bidirectional=False,
            num_buckets=table.relative_attention_num_buckets,
            max_distance=table.relative_attention_max_distance,
        )
        near: torch.Tensor = table.relative_attention_bias(buckets).transpose(1, 2)[:, :, None]
        return near + _unseen(positions, past)

    def run(self, ids: torch.Tensor, positions: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        decoder, model = self.decoder, self.model
        hidden = decoder.embed_tokens(ids)
        for block in decoder.block:
            hidden = block(hidden, encoder_hidden_states=states, cache_position=positions)[0]
        hidden = decoder.final_layer_norm(hidden)
        hidden = hidden * model.model_dim**-0.5 if model.config.tie_word_embeddings else hidden
        logits: torch.Tensor = model.lm_head(hidden)
        return logits


DECODERS: dict[str, Callable[[Any], _Decoder]] = {
    "bart": _BartLike,
    "marian": _BartLike,
    "mbart": _BartLike,
    "mt5": _T5Like,
    "pegasus": _BartLike,
    "t5": _T5Like,
}
"""The families, by model type, whose texts may share steps."""


def export_shared_steps(model: PreTrainedModel, folder: Path) -> None:
    """Writes the graph of later steps over optimum's, of a family in `DECODERS`. Raises ExportFailed."""
    file = folder / NEXT_STEP_FILE
    for old in folder.glob(f"{NEXT_STEP_FILE}*"):
        old.unlink()
    decoder = DECODERS[model.config.model_type](model).eval()  # else the export would leave the model in training
    try:
        with torch.inference_mode(), _attending(decoder) as projections:
            _export(decoder, projections, file)
    except (ValueError, KeyError, TypeError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise ExportFailed(f"{model.config.model_type} cannot be exported to share steps: {error}") from error


@contextmanager
def _attending(decoder: _Decoder) -> Iterator[list[_Projections]]:
    """Replaces the attention of the decoder's layers, and puts it back."""
    before = [(holder, name, getattr(holder, name), made, cross) for holder, name, made, cross in decoder.attentions()]
    try:
        for at, (holder, name, _, made, cross) in enumerate(before):
            setattr(holder, name, _Attention(made, at // 2, decoder.steps, cross=cross))
        yield [made for *_, made, _ in before]
    finally:
        for holder, name, one, _, _ in before:
            setattr(holder, name, one)


def _export(decoder: _Decoder, projections: list[_Projections], file: Path) -> None:
    """Traces a step of five rows of two texts, the first of which has two pages."""
    rows, past, source = 5, 3, 7
    names = [f"{PAST}{layer}.{part}" for layer in range(len(projections) // 2) for part in PARTS]
    own = [name for name in names if "decoder" in name]
    heads, width = projections[0].heads, projections[0].width
    taken = [
        torch.ones(rows, 1, dtype=torch.int64),
        torch.tensor([1, 2, 3, 3, 2]),
        torch.tensor([[0, 1, 2], [0, 1, 2], [3, 4, 0]]),
        torch.tensor([[0, 3], [1, 4], [2, 5], [6, -1], [7, -1]]),
        torch.ones(3, source, dtype=torch.int64),
        *(torch.zeros(*((rows, heads, past) if name in own else (3, heads, source)), width) for name in names),
    ]
    axes = {
        INPUT_IDS: {0: "rows"},
        POSITIONS: {0: "rows"},
        PLACES: {0: "pages", 1: "beams"},
        SLOTS: {0: "rows", 1: "text_pages"},
        ENCODER_MASK: {0: "pages", 1: "page"},
        LOGITS: {0: "rows"},
        **{name: {0: "rows", 2: "past"} if name in own else {0: "pages", 2: "page"} for name in names},
        **{present_of(name): {0: "rows"} for name in own},
    }
    torch.onnx.export(
        decoder,
        tuple(taken),
        str(file),
        input_names=[INPUT_IDS, POSITIONS, PLACES, SLOTS, ENCODER_MASK, *names],
        output_names=[LOGITS, *map(present_of, own)],
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )


PROVEN_TOKENS, MOST_PROVEN = 6, 40
"""Tokens that the proof writes of a text, and of a short one: more than buffers hold at first, so that they grow."""

SHORT_SOURCE = 16
"""The most tokens of a source of which the proof writes `MOST_PROVEN`."""

JOINING = 2
"""Steps between the joins of the proof's texts, so that no two are equally far."""


class StepProof:
    """What a source makes of texts, each of two beams, that texts that share steps are to get too.

    It asks the source before anything is exported, since an export changes T5's encoder. Texts are cut from `tokens`.
    """

    def __init__(self, original: Original, tokens: Sequence[int], start: int) -> None:
        """Asks the source."""
        self._family = original.model.config.model_type
        self._start = start
        self._most = original.window - 1
        self._batches = batches_of(lambda most: tokens[:most], original.window)
        rows = {tuple(row) for batch in self._batches for row in batch}
        self._meant = {row: self._asked(original.model, row) for row in rows}

    def check(self, engine: OnnxSeq2Seq) -> None:
        """Compares texts alone, three alike, and texts of unlike lengths in either order. Raises ExportFailed."""
        prove_shapes(
            self._family,
            self._batches,
            lambda batch: [self._meant[tuple(row)] for row in batch],
            lambda batch: [_in_order(one) for one in _stepped(engine, batch, [self._forced(row) for row in batch])],
        )

    def _asked(self, model: Any, row: Sequence[int]) -> Logits:
        ids = torch.tensor([list(row)])
        with torch.inference_mode():
            states = model.get_encoder()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            logits = model(
                encoder_outputs=(states.expand(2, -1, -1),),
                attention_mask=torch.ones(2, len(row), dtype=torch.int64),
                decoder_input_ids=torch.from_numpy(self._forced(row)),
                use_cache=False,
            ).logits
        return _in_order(logits.numpy())

    def _forced(self, row: Sequence[int]) -> TokenIds:
        """The tokens (beams, steps) that are written after a source, whoever writes."""
        steps = min(MOST_PROVEN if len(row) <= SHORT_SOURCE else PROVEN_TOKENS, self._most)
        beams = np.stack([np.resize(np.asarray(row), steps), np.resize(np.asarray(row)[::-1], steps)])
        beams[:, 0] = self._start
        return beams


def _in_order(logits: Logits) -> Logits:
    """Logits of two beams (beams, steps, vocabulary) as rows, but for the second beam's first, which has begun then."""
    return np.concatenate([logits[0], logits[1, 1:]])


def _stepped(engine: OnnxSeq2Seq, sources: Sequence[Sequence[int]], forced: Sequence[TokenIds]) -> list[Logits]:
    """The logits (beams, steps, vocabulary) of texts that are made to write, joining one after the other.

    The beams fork at the second step and swap at each after it.
    """
    decoders: list[Decoder] = []
    found: list[list[Logits]] = [[] for _ in sources]
    going_on: list[int] = []
    at = 0
    while len(decoders) < len(sources) or any(
        len(one) < beams.shape[1] for one, beams in zip(found, forced, strict=True)
    ):
        if at % JOINING == 0 and len(decoders) < len(sources):
            text = len(decoders)
            decoders.append(engine.encode(np.asarray(sources[text], dtype=np.int64)))
            first = decoders[text].step(forced[text][:1, 0], np.zeros(1, dtype=np.int64))
            found[text].append(np.repeat(first, 2, axis=0))
        pending = [_pending(forced[text], len(found[text])) for text in going_on]
        together = engine.step_together([decoders[text] for text in going_on], pending) if going_on else []
        for text, logits in zip(going_on, together, strict=True):
            found[text].append(logits if len(found[text]) % 2 else logits[::-1])
        going_on = [text for text in range(len(decoders)) if len(found[text]) < forced[text].shape[1]]
        at += 1
    return [np.stack(one, axis=1) for one in found]


def _pending(forced: TokenIds, step: int) -> Pending:
    """The next tokens and their origins, in swapped order at every other step."""
    tokens = forced[:, step] if step % 2 else forced[::-1, step]
    return np.ascontiguousarray(tokens), np.zeros(2, dtype=np.int64) if step == 1 else np.asarray([1, 0])

"""Loads a checkpoint with transformers in fp32, as the reference for its variants.

Loading imports torch and transformers (seconds, hundreds of MB); importing this module does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.engines.base import padded
from deployments.replica.tokens import SAMPLE, TOKENIZER_FILE, Side
from exporters.errors import SourceRefused
from exporters.kinds.pieces import fast_form
from exporters.sources.source import SENTENCEPIECE

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from deployments.engines.base import Logits
    from exporters.verification import RowTypes, RunRows

TYPE_IDS = "token_type_ids"
UNSAID = {"bbox": "where each word stands on its page", "xpath_tags_seq": "where each word stands in its HTML"}
"""Inputs that decide a checkpoint's answer, which no request has. Without `bbox` transformers puts every word of a
LayoutLM into the corner of the page: it answers, as no document that it was trained on would have it."""

UNLIMITED = 1_000_000
DEFAULT_WINDOW = 512


@dataclass(frozen=True)
class Original:
    """A loaded checkpoint: its model in fp32, its fast tokenizer, its window in tokens.

    Batches are padded with `pad_id`.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    window: int
    pad_id: int

    @property
    def truncation_side(self) -> Side:
        """The side on which the checkpoint's own tokenizer cuts a text."""
        return "left" if self.tokenizer.truncation_side == "left" else "right"

    def encode(self, text: str, most: int | None = None) -> list[int]:
        """Token ids by the checkpoint's own tokenizer, cut at the window, or at `most` tokens."""
        ids: list[int] = self.tokenizer(text, truncation=True, max_length=most or self.window)["input_ids"]
        return ids

    def encode_pair(self, text: str, other: str) -> tuple[list[int], list[int]]:
        """Token ids and types of two texts as one input, cut at the window; no types where the tokenizer gives none."""
        found = self.tokenizer(text, other, truncation=True, max_length=self.window)
        return found["input_ids"], found.get(TYPE_IDS, [])

    def tensors(self, rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Ids and mask of a batch padded to its longest row, as the model's keyword arguments."""
        import torch

        batch = padded(rows, self.pad_id)
        return {
            "input_ids": torch.from_numpy(batch.token_ids),
            "attention_mask": torch.from_numpy(batch.attention_mask),
        }

    def typed_tensors(
        self, rows: Sequence[Sequence[int]], types: Sequence[Sequence[int]] | None
    ) -> dict[str, torch.Tensor]:
        """The same with token types, if the model takes any: where none are given, those of single texts."""
        import torch

        found = self.tensors(rows)
        if self.takes_types:
            types = types or [self.single_types(len(row)) for row in rows]
            batch = padded(rows, self.pad_id, types)
            blank = batch.token_types is None
            found[TYPE_IDS] = torch.zeros_like(found["input_ids"]) if blank else torch.from_numpy(batch.token_types)
        return found

    def runner(self, types: RowTypes | None = None) -> RunRows:
        """A function that gives the head's logits of a batch of rows, padded to the longest.

        Without `types` the rows are single texts.
        """

        def run(rows: list[list[int]]) -> Logits:
            import torch

            with torch.inference_mode():
                given = self.typed_tensors(rows, None if types is None else [types[tuple(row)] for row in rows])
                logits: Logits = self.model(**given).logits.numpy()
            return logits

        return run

    def single_types(self, tokens: int) -> list[int]:
        """The token types of a single text of so many tokens, as the tokenizer gives them: 0 but for special tokens."""
        before, after = self._special_types
        return [*before, *[0] * (tokens - len(before) - len(after)), *after]

    @cached_property
    def _special_types(self) -> tuple[list[int], list[int]]:
        """The types of the special tokens before and after a single text."""
        found = self.tokenizer(SAMPLE, return_special_tokens_mask=True)
        mask, types = found["special_tokens_mask"], found.get(TYPE_IDS, [])
        if 0 not in mask or not any(types):
            return [], []
        first, last = mask.index(0), len(mask) - mask[::-1].index(0)
        return types[:first], types[last:]

    def check_ids(self, rows: Sequence[Sequence[int]], location: str) -> None:
        """Checks that the weights know every token of the rows. Raises SourceRefused."""
        embeddings: Any = self.model.get_input_embeddings()
        known, largest = embeddings.num_embeddings, max(map(max, rows))
        if largest >= known:
            raise SourceRefused(
                f"{location}: its tokenizer gives the token {largest}, and its weights know {known} from 0; "
                f"they do not belong together"
            )

    @cached_property
    def takes_types(self) -> bool:
        """True if the tokenizer gives token types, as a pipeline would pass them, and the model takes them."""
        return TYPE_IDS in self.tokenizer.model_input_names and TYPE_IDS in signature(self.model.forward).parameters

    def save_tokenizer(self, folder: Path) -> None:
        """Writes tokenizer.json as transformers uses it, which may differ from the checkpoint's file."""
        self.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER_FILE))


def load_original(path: Path, location: str, auto_class: str, name: str, heads: tuple[str, ...] = ()) -> Original:
    """Loads the checkpoint in a folder with one of transformers' auto classes, in fp32.

    Raises SourceRefused if it is not `name` (such as "a classifier") or lacks weights. Weights that begin with one of
    `heads` may be missing: they are not used.
    """
    tokenizer = _load_tokenizer(path, location)
    model = _load_model(path, location, auto_class, name, heads)
    pad_id = int(tokenizer.pad_token_id) if tokenizer.pad_token_id is not None else 0
    return Original(model, tokenizer, _window_of(model, tokenizer), pad_id)


def pipeline_of(name: str, folder: Path, **settings: Any) -> Any:
    """Transformers' pipeline of that name over a checkpoint's folder, in fp32: what variants are compared with."""
    from transformers import pipeline

    return pipeline(name, model=str(folder), **settings)  # type: ignore[call-overload]


def _load_model(path: Path, location: str, auto_class: str, name: str, heads: tuple[str, ...]) -> PreTrainedModel:
    import torch
    import transformers
    from safetensors import SafetensorError

    try:
        model, report = getattr(transformers, auto_class).from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
        raise SourceRefused(f"{location}: cannot be loaded as {name}: {_first_line(error)}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(heads))
    if missing:
        shown = ", ".join(missing[:4])
        raise SourceRefused(f"{location}: the weights of {name} are not all there; missing: {shown}")
    unsaid = next((name for name in UNSAID if name in signature(model.forward).parameters), None)
    if unsaid is not None:
        raise SourceRefused(f"{location}: {model.config.model_type} reads {UNSAID[unsaid]} ({unsaid}), not text alone")
    loaded: PreTrainedModel = model.eval()
    return loaded


def _load_tokenizer(path: Path, location: str) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    _check_pieces(path, location)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, use_fast=True, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError, AttributeError, TypeError) as error:
        raise SourceRefused(f"{location}: its tokenizer cannot be loaded: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer = fast_form(tokenizer)
    if tokenizer is None:
        raise SourceRefused(f"{location}: its tokenizer has no fast form, which is the only one served")
    loaded: PreTrainedTokenizerFast = tokenizer
    return loaded


def _check_pieces(path: Path, location: str) -> None:
    """Checks the file of SentencePiece that a tokenizer is converted from, where it is not converted yet.

    Raises SourceRefused; transformers' own errors name neither the file nor the cause.
    """
    if (path / TOKENIZER_FILE).exists():
        return
    for file in sorted(path.glob(f"*{SENTENCEPIECE}")):
        from sentencepiece import SentencePieceProcessor  # needed for such checkpoints only

        try:
            SentencePieceProcessor(model_file=str(file))
        except (OSError, RuntimeError) as error:
            raise SourceRefused(f"{location}: its {file.name} is no file of SentencePiece's") from error


def _window_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> int:
    """The most tokens of one input: the lesser of the tokenizer's limit and the model's positions."""
    limits = [int(tokenizer.model_max_length)] if tokenizer.model_max_length < UNLIMITED else []
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions and positions > 0:  # XLNet says -1: it has no table of positions
        limits.append(positions - _positions_kept_back(model))
    return min(limits, default=DEFAULT_WINDOW)


def _positions_kept_back(model: PreTrainedModel) -> int:
    """Unusable positions: RoBERTa and relatives count from after the padding id, so they have two fewer."""
    tables: list[Any] = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
    reserved = getattr(tables[0], "padding_idx", None) if tables else None
    return 0 if reserved is None else int(reserved) + 1


def _first_line(error: BaseException) -> str:
    """What an error says in its first line, with its type where that is no sentence."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__} {said}".strip() if isinstance(error, KeyError) or not said else said

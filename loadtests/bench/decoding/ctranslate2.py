"""CTranslate2 in int8: converts a checkpoint, and runs it as a decoding peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctranslate2
from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
SPECIAL = {
    "eos_token": "decoder_start_token",
    "bos_token": "decoder_start_token",
    "pad_token": "eos_token",
    "unk_token": "pad_token",
}
"""The special tokens that a converted model names, each with the configuration's fallback."""
NORMS_BEFORE = {"bart": False, "pegasus": True, "mbart": True}


class CTranslate2Peer:
    """A decoding peer that loads a converted folder. The library takes tokens as strings and does its own search."""

    encodes_alone = False

    def __init__(self, translator: ctranslate2.Translator, tokenizer: Tokenizer) -> None:
        """Takes an open translator and the checkpoint's tokenizer; `open` makes both."""
        self._translator = translator
        self._tokenizer = tokenizer

    @classmethod
    def open(cls, folder: Path, threads: int) -> CTranslate2Peer:
        """Loads a model that `convert` wrote."""
        translator = ctranslate2.Translator(
            str(folder), device="cpu", compute_type="int8", inter_threads=1, intra_threads=threads
        )
        return cls(translator, Tokenizer.from_file(str(folder / TOKENIZER)))

    @property
    def arithmetic(self) -> str:
        """The compute type that the translator reports."""
        return str(self._translator.compute_type)

    def encode(self, token_ids: Sequence[int]) -> None:
        """Raises NotImplementedError: the library cannot run the encoder alone."""
        raise NotImplementedError("a CTranslate2 translator cannot run its encoder alone")

    def write(self, token_ids: Sequence[int], beams: int, tokens: int) -> int:
        """Greedy or beam search of exactly `tokens` tokens."""
        text = [self._tokenizer.id_to_token(token) for token in token_ids]
        results = self._translator.translate_batch(
            [text], beam_size=beams, min_decoding_length=tokens, max_decoding_length=tokens, max_input_length=0
        )
        return len(results[0].hypotheses[0])


def convert(source: Path, folder: Path) -> None:
    """Converts a checkpoint to CTranslate2's int8 format and copies its tokenizer. Raises the converter's errors."""
    _converter()(str(source), copy_files=[TOKENIZER]).convert(str(folder), quantization="int8", force=True)


def _converter() -> Any:
    """CTranslate2's converter of transformers checkpoints, with three additions.

    It adds the position of the norms to the configuration, names the tokenizer's special tokens, and pads the
    tokenizer to the size of the model's vocabulary.
    """
    from ctranslate2.converters import TransformersConverter  # imports torch, which only converting needs

    class Converter(TransformersConverter):  # type: ignore[misc]
        config: Any = None

        def load_model(self, model_class: Any, model_name_or_path: str, **options: Any) -> Any:
            model = super().load_model(model_class, model_name_or_path, **options)
            if not hasattr(model.config, "normalize_before"):
                model.config.normalize_before = NORMS_BEFORE[model.config.model_type]
            if not hasattr(model.config, "normalize_embedding"):
                model.config.normalize_embedding = not model.config.normalize_before
            self.config = model.config
            return model

        def load_tokenizer(self, tokenizer_class: Any, model_name_or_path: str, **options: Any) -> Any:
            tokenizer = super().load_tokenizer(tokenizer_class, model_name_or_path, **options)
            for role, fallback in SPECIAL.items():
                if getattr(tokenizer, role) is None:
                    known = getattr(self.config, f"{role}_id", None)
                    known = getattr(self.config, f"{fallback}_id") if known is None else known
                    setattr(tokenizer, role, tokenizer.convert_ids_to_tokens(known))
            fillers = range(self.config.vocab_size - len(tokenizer))
            tokenizer.add_tokens([f"<filler {number}>" for number in fillers])
            return tokenizer

    return Converter

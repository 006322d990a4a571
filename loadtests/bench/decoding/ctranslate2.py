"""CTranslate2 in int8: its converter, and its translator as a decoding peer."""

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
"""The special tokens that a converted model names, each with the one of the configuration that stands in for it."""
NORMS_BEFORE = {"bart": False, "pegasus": True, "mbart": True}


class CTranslate2Peer:
    """A decoding peer over a converted folder. It takes tokens as strings and searches by itself."""

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
        """As the translator says it."""
        return str(self._translator.compute_type)

    def encode(self, token_ids: Sequence[int]) -> None:
        """Not to be had alone."""
        raise NotImplementedError("a CTranslate2 translator does not run its encoder by itself")

    def write(self, token_ids: Sequence[int], beams: int, tokens: int) -> int:
        """Greedy or beam search of exactly `tokens` tokens."""
        text = [self._tokenizer.id_to_token(token) for token in token_ids]
        results = self._translator.translate_batch(
            [text], beam_size=beams, min_decoding_length=tokens, max_decoding_length=tokens, max_input_length=0
        )
        return len(results[0].hypotheses[0])


def convert(source: Path, folder: Path) -> None:
    """Writes a checkpoint in CTranslate2's format, int8, with its tokenizer. Raises what the converter raises."""
    _converter()(str(source), copy_files=[TOKENIZER]).convert(str(folder), quantization="int8", force=True)


def _converter() -> Any:
    """The converter of transformers' checkpoints, for three things that it takes for granted.

    A configuration says where its norms stand, a tokenizer names its special tokens, and one that has fewer entries
    than the model's vocabulary is filled up.
    """
    from ctranslate2.converters import TransformersConverter  # imports torch: to convert, not to run

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

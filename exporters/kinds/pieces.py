"""Makes one fast tokenizer of tokenizers that transformers has in a slow form only: those of Marian, M2M-100 and CTRL.

The first two read pieces by a file of SentencePiece's and number them by a table of their own. Marian's table also has
the pieces of the target language, which a text is never cut into: they are kept under names that no text has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

HIDDEN = "\ue000"
"""What the name of a piece begins with that no text is cut into: a character of private use, taken out of texts."""

UNKNOWN_PENALTY = 10.0
"""What SentencePiece takes off the least score of a piece for a character that it does not know."""

BPE = 2
NORMAL, USER_DEFINED = 1, 4
"""Numbers in SentencePiece's files: of a model that merges pairs, and of kinds of pieces."""

REPLACEMENT = "▁"


def fast_form(tokenizer: Any) -> PreTrainedTokenizerFast | None:
    """The fast form of a tokenizer, with the same ids; None for one that is not known here."""
    make = _MAKERS.get(type(tokenizer).__name__)
    return None if make is None else make(tokenizer)


def _ctrl(tokenizer: Any) -> PreTrainedTokenizerFast:
    from exporters.sources.ctrl_words import fast_tokenizer  # imports transformers

    return fast_tokenizer(tokenizer)


def _marian(tokenizer: Any) -> PreTrainedTokenizerFast | None:
    if tokenizer.separate_vocabs:  # one id then means two pieces
        return None
    return _wrapped(tokenizer, tokenizer.spm_files[0], tokenizer.encoder)


def _m2m(tokenizer: Any) -> PreTrainedTokenizerFast:
    ids = {**tokenizer.encoder, **tokenizer.lang_token_to_id}
    return _wrapped(tokenizer, tokenizer.spm_file, ids)


_MAKERS: Mapping[str, Callable[[Any], PreTrainedTokenizerFast | None]] = {
    "MarianTokenizer": _marian,
    "M2M100Tokenizer": _m2m,
    "CTRLTokenizer": _ctrl,
}


def _wrapped(tokenizer: Any, file: str, ids: Mapping[str, int]) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    specials = [str(one) for one in tokenizer.all_special_tokens if str(one) in ids]
    return PreTrainedTokenizerFast(
        tokenizer_object=converted(file, ids, specials, str(tokenizer.unk_token), str(tokenizer.eos_token)),
        unk_token=str(tokenizer.unk_token),
        eos_token=str(tokenizer.eos_token),
        pad_token=str(tokenizer.pad_token),
        model_max_length=tokenizer.model_max_length,
    )


def converted(file: str, ids: Mapping[str, int], specials: Collection[str], unknown: str, end: str) -> Tokenizer:
    """A tokenizer that cuts texts as a file of SentencePiece's says, numbers pieces by `ids`, and adds the `end`."""
    from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers, processors

    proto = _read(file)
    tokenizer = _model(proto, file, ids, specials, unknown)
    charsmap = proto.normalizer_spec.precompiled_charsmap
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(HIDDEN, " "),
            *([normalizers.Precompiled(charsmap)] if charsmap else []),
            normalizers.Strip(left=True, right=True),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=REPLACEMENT, prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(HIDDEN, ""), decoders.Metaspace(replacement=REPLACEMENT, prepend_scheme="always")]
    )
    tokenizer.add_special_tokens([AddedToken(one, normalized=False, special=True) for one in specials])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, ids[end])])
    return tokenizer


def _read(file: str) -> Any:
    from pathlib import Path

    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()
    proto.ParseFromString(Path(file).read_bytes())
    return proto


def _model(proto: Any, file: str, ids: Mapping[str, int], specials: Collection[str], unknown: str) -> Tokenizer:
    from tokenizers import Tokenizer, models
    from transformers.convert_slow_tokenizer import SentencePieceExtractor

    known = {one.piece: one.score for one in proto.pieces if one.type in (NORMAL, USER_DEFINED)}
    vocabulary = _numbered(known, ids, specials)
    if proto.trainer_spec.model_type == BPE:
        places = {piece: at for at, (piece, _) in enumerate(vocabulary)}
        _, merges = SentencePieceExtractor(file).extract([*known.items()])
        merges = [(left, right) for left, right in merges if {left, right, left + right} <= places.keys()]
        return Tokenizer(models.BPE(places, merges, unk_token=unknown, fuse_unk=True))
    return Tokenizer(models.Unigram(vocabulary, unk_id=ids[unknown], byte_fallback=False))


def _numbered(known: Mapping[str, float], ids: Mapping[str, int], specials: Collection[str]) -> list[tuple[str, float]]:
    """Each piece at its number, with its score.

    A character that the file does not know and the table does is read as what SentencePiece makes of it: as something
    unknown, which the table then knows.
    """
    least = min(known.values()) - UNKNOWN_PENALTY
    found = [(f"{HIDDEN}{at}", 0.0) for at in range(max(ids.values()) + 1)]
    for piece, at in ids.items():
        if piece in specials:
            found[at] = (piece, 0.0)
        elif piece in known:
            found[at] = (piece, known[piece])
        elif len(piece) == 1:
            found[at] = (piece, least)
        else:
            found[at] = (f"{HIDDEN}{piece}", 0.0)
    return found

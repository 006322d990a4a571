"""How well an encoder-decoder's variant agrees with its source: the same texts through both, token by token.

Both write greedily, for beams would hide behind one another what an engine gets wrong. The variant runs as a replica
will run it; the source comes in as a function, so nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deployments.engines.base import Seq2SeqEngine
from deployments.replica.summarize.beam_search import SearchRules, source_ids, write_greedily
from deployments.replica.tokens import TextTokens
from exporters.errors import Difference
from exporters.plan import Advance
from exporters.rouge import lost, mean_rouge_l, rouge_l_lost
from exporters.texts import SummarisedText, SummarySet
from gateway.model.manifest import Precision, TokenVerification

MOST_TEXTS = 200
VERIFIED_TOKENS = 64
"""Both write so many tokens of a text at most: what an engine gets wrong it gets wrong early, and a checkpoint that
never ends must come to an end."""

BATCH = 4
WORST = 10
SHOWN_CHARACTERS = 80

Written = tuple[int, ...]
Clock = Callable[[], float]
WriteRows = Callable[[list[list[int]], int], list[list[int]]]
Encode = Callable[[str], list[int]]


@dataclass(frozen=True)
class WritingFloors:
    """What a variant must reach: the least share of texts written alike, the least ROUGE-L against what the source
    wrote where the texts bear no summaries, and the most ROUGE-L that it may lose, chance aside, where they do.
    """

    same_tokens: float
    rouge_l_to_source: float
    rouge_l_drop: float = 0.01


FLOORS = {Precision.FP32: WritingFloors(0.97, 0.99), Precision.INT8: WritingFloors(0.4, 0.8)}
"""In fp32 every text is written alike but for a near tie. In int8 one token of a close choice turns and the rest
follows: `bart-software` writes 60 % of 300 texts as in fp32, with a ROUGE-L of 0.86 against them, and no worse by the
texts' own summaries (+0.004, standard error 0.005). A random one writes 15 % alike. So the share is there to find what
is broken, and ROUGE-L to judge."""


@dataclass(frozen=True)
class WritingComparison:
    """A verification with what it found wrong: the broken floor in words, or None, and the worst texts."""

    verification: TokenVerification
    broken: str | None
    differences: tuple[Difference, ...]


def source_writing(
    encode: Encode,
    write: WriteRows,
    texts: SummarySet,
    rules: SearchRules,
    clock: Clock,
    budget_s: float,
    advance: Advance,
) -> tuple[SummarySet, list[Written]]:
    """What the source writes to each text, and the texts that there was time for: all, or at least one batch.

    Each batch has texts of the whole set, so that fewer of them are still of every kind.
    """
    batches = -(-len(texts.texts) // BATCH)
    started, asked, written = clock(), list[SummarisedText](), list[Written]()
    for at in range(batches):
        chosen = texts.texts[at::batches]
        rows = write([encode(one.text) for one in chosen], VERIFIED_TOKENS)
        asked += chosen
        written += [stripped(row, rules) for row in rows]
        spent = clock() - started
        advance(max((at + 1) / batches, min(spent / budget_s, 1.0)))
        if spent * (at + 2) / (at + 1) > budget_s:
            break
    advance(1.0)
    return SummarySet(texts.name, tuple(asked)), written


def variant_writing(
    engine: Seq2SeqEngine,
    tokens: TextTokens,
    texts: SummarySet,
    prefix: str,
    window: int,
    rules: SearchRules,
    advance: Advance,
) -> list[Written]:
    """What the variant writes to each text, each alone."""
    found = []
    for one in texts.texts:
        found.append(write_greedily(engine, source_ids(tokens, one.text, prefix, window), rules))
        advance(len(found) / len(texts.texts))
    return found


def stripped(row: Sequence[int], rules: SearchRules) -> Written:
    """A row of transformers' as `Search.best` gives it: up to its first end, without start, end and padding."""
    ends = [at for at, token in enumerate(row) if token in rules.eos_token_ids]
    left_out = {*rules.eos_token_ids, rules.decoder_start_token_id, rules.pad_token_id}
    return tuple(token for token in row[: ends[0] if ends else None] if token not in left_out)


def writing_floors(precision: Precision, floor: float | None, drop: float) -> WritingFloors:
    """The precision's own floors; a floor that was asked for takes the place of both that agreement has."""
    usual = FLOORS[precision]
    if floor is None:
        return WritingFloors(usual.same_tokens, usual.rouge_l_to_source, drop)
    return WritingFloors(floor, floor, drop)


def compare_writing(
    source: Sequence[Written],
    variant: Sequence[Written],
    tokens: TextTokens,
    texts: SummarySet,
    floors: WritingFloors,
) -> WritingComparison:
    """Judges what the variant wrote by what the source wrote, and by the texts' summaries where they have them.

    A text to which both write nothing proves nothing: it is not counted as written alike.
    """
    meant, said = [tokens.decode(one) for one in source], [tokens.decode(one) for one in variant]
    against = rouge_l_lost(meant, said, texts.summaries, floors.rouge_l_drop) if texts.summaries else None
    verification = TokenVerification(
        texts=len(texts.texts),
        data_set=texts.name,
        same_tokens=sum(one == other != () for one, other in zip(source, variant, strict=True)) / len(source),
        same_tokens_floor=floors.same_tokens,
        rouge_l_to_source=mean_rouge_l(said, meant),
        rouge_l=against.variant if against else None,
        source_rouge_l=against.source if against else None,
        rouge_l_drop_ceiling=against.drop_ceiling if against else floors.rouge_l_drop,
    )
    differences = [
        Difference(at, _from_the_first_difference(one, other, tokens), _from_the_first_difference(other, one, tokens))
        for at, (one, other) in enumerate(zip(source, variant, strict=True))
        if one != other
    ]
    silent = sum(not one for one in source)
    return WritingComparison(verification, _broken(verification, floors, silent), tuple(differences[:WORST]))


def _broken(found: TokenVerification, floors: WritingFloors, silent: int) -> str | None:
    if found.same_tokens < found.same_tokens_floor:
        nothing = f" (to {silent} of them the source writes nothing, which proves nothing)" if silent else ""
        return (
            f"{found.same_tokens:.0%} of {found.texts} texts are written as the source writes them, "
            f"under the floor of {found.same_tokens_floor:.0%}{nothing}"
        )
    if found.rouge_l is None and found.rouge_l_to_source < floors.rouge_l_to_source:
        return (
            f"its ROUGE-L against the source is {found.rouge_l_to_source:.3f}, "
            f"under the floor of {floors.rouge_l_to_source:.3f}"
        )
    return lost(found)


def _from_the_first_difference(one: Written, other: Written, tokens: TextTokens) -> str:
    pairs = zip(one, other, strict=False)
    first = next((at for at, (mine, its) in enumerate(pairs) if mine != its), min(len(one), len(other)))
    text = tokens.decode(one[first:])[:SHOWN_CHARACTERS]
    return f"{'… ' if first else ''}{text or '(nothing)'}"

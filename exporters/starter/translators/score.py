"""Scores a translator of segments by BLEU and chrF, beside the domain's simple baselines.

The baselines are the text itself, which many names and terms survive, and the nearest text of a translation memory.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exporters.starter.packages import CannotBuild
from exporters.starter.software.descriptions import normalised
from exporters.starter.training import PAD_ID, encode, in_order
from exporters.starter.translators.segments import Segment

AT_ONCE = 32
MOST_POSTINGS = 2_000
"""Texts with a word, beyond which the word says too little to look for neighbours by. Set by hand."""


@dataclass(frozen=True)
class Figures:
    """Corpus scores over segments, by sacrebleu's own defaults."""

    segments: int
    bleu: float
    chrf: float


def scored(said: Sequence[str], meant: Sequence[str]) -> Figures:
    """BLEU and chrF of translations against one reference each. Raises CannotBuild without sacrebleu."""
    try:
        import sacrebleu  # for this recipe only
    except ImportError as error:
        raise CannotBuild("sacrebleu scores the translations: pip install sacrebleu") from error
    bleu, chrf = (
        measure(list(said), [list(meant)]).score for measure in (sacrebleu.corpus_bleu, sacrebleu.corpus_chrf)
    )
    return Figures(len(said), round(bleu, 2), round(chrf, 2))


def nearest(texts: Sequence[str], memory: Sequence[Segment]) -> list[str]:
    """For each text, the translation of the text in memory that shares most of its words, weighed by their rarity.

    The score is the weight of shared words by that of all words of both (a weighted Jaccard index). A text that shares
    none is copied.
    """
    words = [frozenset(normalised(one.text).split()) for one in memory]
    postings: dict[str, list[int]] = {}
    for at, own in enumerate(words):
        for word in own:
            postings.setdefault(word, []).append(at)
    weights = {word: math.log1p(len(memory) / len(found)) for word, found in postings.items()}
    totals = [sum(weights[word] for word in own) for own in words]
    found = []
    for text in texts:
        asked = set(normalised(text).split())
        total = sum(weights.get(word, math.log1p(len(memory))) for word in asked)
        shared: defaultdict[int, float] = defaultdict(float)
        for word in asked:
            if len(postings.get(word, ())) <= MOST_POSTINGS:
                for at in postings.get(word, ()):
                    shared[at] += weights[word]
        best = max(shared, key=lambda at: shared[at] / (total + totals[at] - shared[at]), default=None)
        found.append(text if best is None else memory[best].translation)
    return found


def translated(folder: Path, texts: Sequence[str], beams: int, most_tokens: int) -> list[str]:
    """What the checkpoint in a folder writes, in batches of like lengths."""
    from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    rows = encode(tokenizer.backend_tokenizer, texts, most_tokens)
    found = [""] * len(texts)
    with torch.inference_mode():
        for batch in in_order(rows, AT_ONCE, PAD_ID):
            written = model.generate(
                batch.input_ids, attention_mask=batch.attention_mask, num_beams=beams, max_new_tokens=most_tokens
            )
            for at, text in zip(
                batch.rows.tolist(), tokenizer.batch_decode(written, skip_special_tokens=True), strict=True
            ):
                found[at] = text
    return found

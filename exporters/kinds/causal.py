"""Makes decoder-only variants: one ONNX graph and two profiles, verified token by token.

Source and variant read equal texts, and after each token the one that both find likeliest is compared, and what both
make of the token that does follow. So an early difference does not change what is compared later, as it would in
generated text. That the graph writes from its keys and values as it reads at once is proven beforehand.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deployments.engines.base import CausalEngine, Logits, Seq2SeqEngine, TokenIds
from deployments.engines.host import read_host
from deployments.engines.opening import CAUSAL_FILES, open_causal_engine
from deployments.replica.generate.prompts import TEMPLATE_FILE, Prompts
from deployments.replica.generate.replica import OpenCausal
from deployments.replica.generate.writing import write_on
from deployments.replica.tokens import TextTokens
from deployments.replica.writing.beam_search import GOLDEN_TOKENS
from exporters.errors import Difference, ExportFailed, SourceRefused
from exporters.kinds.embedder import MODULES_FILE
from exporters.kinds.generation import UNSUPPORTED, Fields, Harmless, check_supported, for_task, ids_of
from exporters.kinds.graphs import (
    QUANTISED,
    Quantise,
    export_causal_graph,
    place_graphs,
    quantise_weights,
    scratch_folder,
)
from exporters.kinds.kind import Kind, TitledProfile, has_head, share_with_floor
from exporters.kinds.original import Original, load_original
from exporters.kinds.shapes import LENGTHS, LONGEST, prove_shapes
from exporters.plan import Step, Workbench
from exporters.profiling import TOKENS_AFTER, Advance, Clock, Watch, measure_reading_and_steps, watch_here
from exporters.sources.source import SourceFolder
from exporters.sources.texts import OWN_TEXTS, SOFTWARE, SUMMARIES, TextSet, read_texts
from exporters.verification import ODD, SHOWN_CHARACTERS, WORST, Comparison, by_length
from gateway.model.manifest import GoldenSummary, Precision
from gateway.model.messages import Failure
from gateway.model.profile import ProfileDocument
from gateway.tasks.generate import CausalManifest, NextTokenVerification, WritingRules

ARCHITECTURES = ("ForCausalLM", "LMHeadModel")
PIPELINE = "text-generation"

MOST_WINDOW = 2048
"""Most tokens of prompt and answer together, whatever a checkpoint may take. Set by hand: one run of so many, which
profiling makes, takes seconds, and attention takes memory by their square."""

MAX_NEW_TOKENS = 256
"""The most new tokens where no file of the checkpoint says it, as in transformers' pipeline for text generation."""

MOST_TEXTS = 40
VERIFIED_TOKENS = 128
"""Tokens read of a verification text: each is compared, and a matrix of logits of so many takes tens of megabytes."""

BLOCK = 32
"""Weights that share a scale in int8. Of the next tokens of SmolLM2-135M, 4,693 of package descriptions and documents,
95.9 % are those of its source with 32, 93.8 % with 64, 92.5 % with 128. A step takes 8 % more processor time with 32
than with 128."""

QUANTISED_FINELY: Quantise = {**QUANTISED, Precision.INT8_WEIGHTS: partial(quantise_weights, block=BLOCK, tables=True)}

LAST_STEPS = 4
"""Tokens of a row that the proof takes step by step, after it has read those before at once."""

GOLDEN_WORDS = 24
LENGTH_PROMPTS, LONGEST_ANSWER = 4, 128
"""Prompts that are answered to learn the mean length, and the most tokens of an answer that is measured."""

NO_NUMBER = 1e4
"""The nats that count for a token whose logits are no numbers."""

UNKNOWN: Harmless = {
    **UNSUPPORTED,
    "num_beams": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "min_p": (None, 0.0),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "stop_strings": (None,),
    "watermarking_config": (None,),
}
"""Generation fields that replicas do not support, with the values that have no effect."""

USED = (
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
)


@dataclass(frozen=True)
class NextTokenFloors:
    """What a variant has to reach: the least share of equal next tokens, and the most nats a token that it may lose."""

    agreement: float
    nats: float


FLOORS = {
    Precision.FP32: NextTokenFloors(0.995, 0.001),
    Precision.INT8: NextTokenFloors(0.9, 0.05),
    Precision.INT8_WEIGHTS: NextTokenFloors(0.9, 0.05),
}
"""In fp32 SmolLM2-135M's next tokens are all those of its source. In int8-weights 95.9 % are, and it loses 0.006 nats
of 3.65; in int8, whose activations are rounded a whole tensor at a time, 59 % are and it loses 0.5: refused. Set by
hand between these."""


@dataclass(frozen=True)
class Scored:
    """What a checkpoint makes of a text: the likeliest token after each of its own, and the nats of those after it."""

    likeliest: TokenIds
    nats: NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """The texts that there was time for, their rows of token ids, and what the source makes of each."""

    texts: TextSet
    rows: list[list[int]]
    meant: list[Scored]


def make_causal(bench: Workbench) -> CausalManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan = bench.plan
    original, rules = load_writer(bench.source)
    window, pad_id, codes = min(original.window, MOST_WINDOW), original.pad_id, _control_codes(original)
    original.save_tokenizer(bench.folder)
    template = _save_template(original, bench.folder, bench.source.location)
    prompts = Prompts.open(bench.folder, rules.eos_token_ids)
    asked = _ask(original, prompts.tokens, bench, window)
    questions = _prompts(original, prompts, asked, bench.source.location)
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        export_causal_graph(original.model, scratch)
        _prove(original, asked, open_causal_engine("onnx", scratch, plan.threads), window)
        del original  # free its memory before quantising and profiling
        place_graphs(bench, scratch, CAUSAL_FILES, QUANTISED_FINELY)
    engine = open_causal_engine(plan.engine, bench.folder, plan.threads)
    said = variant_scored(engine, asked.rows, bench.advance(Step.VERIFYING))
    floors = floors_of(plan.precision, bench.settings.floor)
    verification = compare_next_tokens(asked, said, prompts.tokens, floors).accepted(bench)
    golden = record_prompts(engine, prompts.tokens, asked.texts, rules, window)
    budget_s = bench.settings.verification_budget_s / 4
    output_tokens = mean_length(engine, questions, rules, window, time.perf_counter, budget_s)
    profile, step_profile = _profiles(engine, window, golden, plan.threads, bench.profiling())
    return CausalManifest(
        **bench.shared(),
        max_tokens=window,
        pad_token_id=pad_id,
        generation=rules,
        output_tokens=output_tokens,
        chat_template=template,
        control_codes=codes,
        verification=verification,
        self_test=golden,
        profile=profile,
        step_profile=step_profile,
    )


def profile_causal(opened: OpenCausal, threads: int, budget_s: float, advance: Advance) -> CausalManifest:
    """The variant's manifest with both profiles measured now on this host."""
    manifest, watch = opened.manifest, watch_here(budget_s, advance)
    profile, step_profile = _profiles(opened.engine, manifest.max_tokens, manifest.self_test, threads, watch)
    return manifest.model_copy(update={"profile": profile, "step_profile": step_profile})


def _profiles(
    engine: Seq2SeqEngine, window: int, golden: tuple[GoldenSummary, ...], threads: int, watch: Watch
) -> tuple[ProfileDocument, ProfileDocument]:
    """The profiles of reading and of later steps on this host; the longest golden prompt is what is read."""
    longest = max((one.token_ids for one in golden), key=len)
    host = read_host().kind
    most = max(1, window - TOKENS_AFTER)  # no position may be over the window
    return measure_reading_and_steps(engine, most, longest, longest[-1], threads, host, watch, searching=False)


def load_writer(source: SourceFolder) -> tuple[Original, WritingRules]:
    """Loads a decoder-only checkpoint in fp32 with its tokenizer, and reads how it writes. Raises SourceRefused."""
    original = load_original(source.path, source.location, "AutoModelForCausalLM", "a decoder-only checkpoint")
    config, given = original.model.config.to_dict(), original.model.generation_config
    generation = given.to_dict() if given else {}
    return original, rules_of(
        for_task(generation, config, PIPELINE, {*USED, *UNKNOWN}, MAX_NEW_TOKENS), source.location
    )


def rules_of(generation: Fields, location: str) -> WritingRules:
    """The writing rules of a generation config. Raises SourceRefused, which names the field.

    A length that counts the prompt too is taken for one of the answer.
    """
    check_supported(generation, UNKNOWN, location)
    most = generation.get("max_new_tokens")
    temperature, penalty = generation.get("temperature"), generation.get("repetition_penalty")
    return WritingRules(
        eos_token_ids=ids_of(generation.get("eos_token_id")),
        max_new_tokens=max(1, int(most if most is not None else generation["max_length"])),
        sample=bool(generation.get("do_sample")) and temperature != 0,
        temperature=float(temperature or 1.0),
        top_k=int(generation.get("top_k") or 0),
        top_p=float(generation.get("top_p") or 1.0),
        repetition_penalty=1.0 if penalty is None else float(penalty),
    )


def _control_codes(original: Original) -> dict[str, int]:
    """The words that the checkpoint's prompts begin with: a CTRL's control codes; no other checkpoint has any."""
    if original.model.config.model_type != "ctrl":
        return {}
    from exporters.sources.ctrl_words import control_codes  # imports transformers

    return control_codes(original.tokenizer)


def _save_template(original: Original, folder: Path, location: str) -> bool:
    """Writes the checkpoint's chat template, if it has one; true if so. Raises SourceRefused for several."""
    template = original.tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
        if template is None:
            raise SourceRefused(f"{location}: it has several chat templates, and none is the default")
    if not template:
        return False
    (folder / TEMPLATE_FILE).write_text(template, encoding="utf-8")
    return True


def _prompts(original: Original, prompts: Prompts, asked: Asked, location: str) -> list[list[int]]:
    """The token ids of a few texts as one would ask with them: as a user's messages, if there is a chat template.

    Raises SourceRefused if its template takes no message of a user, ExportFailed if replicas read one otherwise.
    """
    most = original.window // 2
    few = [_opening(one.text, prompts.tokens, most) for one in asked.texts.texts[:LENGTH_PROMPTS]]
    if not original.tokenizer.chat_template:
        return [prompts.of_text(text) for text in few]
    tokenizer: Any = original.tokenizer  # whose result is typed as many things
    found = []
    for text in few:
        ids = prompts.of_conversation(("user",), (text,))
        if isinstance(ids, Failure):
            raise SourceRefused(f"{location}: its chat template takes no message of a user")
        if ids != tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True):
            raise ExportFailed(f"{location}: a conversation is not read as by the checkpoint's own template")
        found.append(ids)
    return found


def read_on_texts(source: SourceFolder) -> TextSet:
    """The checkpoint's own texts; else documents and package descriptions. In an order by chance, always the same."""
    own = source.path / OWN_TEXTS
    sets = (read_texts(own),) if own.exists() else (read_texts(SUMMARIES), read_texts(SOFTWARE))
    few = [text for one in sets for text in one.spread(MOST_TEXTS // len(sets)).texts]
    random.Random(0).shuffle(few)
    return TextSet(OWN_TEXTS if own.exists() else ", ".join(one.name for one in sets), tuple(few))


def _ask(original: Original, tokens: TextTokens, bench: Workbench, window: int) -> Asked:
    """What the source makes of as many texts as fit into the time budget.

    Raises SourceRefused if no text has two tokens, ExportFailed if texts are not read as by its tokenizer.
    """
    location, texts = bench.source.location, read_on_texts(bench.source)
    most = min(VERIFIED_TOKENS, window)
    whole: list[list[int]] = [original.tokenizer(one.text)["input_ids"] for one in texts.texts]  # not cut at either end
    if any(row[:most] != tokens.encode(one.text)[:most] for row, one in zip(whole, texts.texts, strict=True)):
        raise ExportFailed(f"{location}: a text is not read as by the checkpoint's own tokenizer")
    kept = [(one, row[:most]) for one, row in zip(texts.texts, whole, strict=True) if len(row) > 1]
    if not kept:
        raise SourceRefused(f"{location}: none of its verification texts has two tokens")
    rows = [row for _, row in kept]
    original.check_ids(rows, location)
    budget_s = bench.settings.verification_budget_s / 2  # the other half is for the variant
    meant = source_scored(partial(logits_of, original), rows, time.perf_counter, budget_s, bench.advance(Step.ASKING))
    count = len(meant)
    return Asked(TextSet(texts.name, tuple(one for one, _ in kept[:count])), rows[:count], meant)


def logits_of(original: Original, row: Sequence[int]) -> Logits:
    """The source's logits (tokens, vocabulary) after each token of a row."""
    import torch

    model: Any = original.model
    with torch.inference_mode():
        logits: Logits = model(**original.tensors([row])).logits[0].numpy()
    return logits


def source_scored(
    ask: Callable[[Sequence[int]], Logits],
    rows: Sequence[list[int]],
    clock: Clock,
    budget_s: float,
    advance: Advance,
) -> list[Scored]:
    """What the source makes of the rows that fit into `budget_s`: all, or at least one."""
    started, found = clock(), list[Scored]()
    for row in rows:
        found.append(scored(ask(row), row))
        spent = clock() - started
        advance(max(len(found) / len(rows), min(spent / budget_s, 1.0)))
        if spent * (len(found) + 1) / len(found) > budget_s:
            break
    advance(1.0)
    return found


def variant_scored(engine: CausalEngine, rows: Sequence[Sequence[int]], advance: Advance) -> list[Scored]:
    """What the variant makes of each row."""
    found = []
    for row in rows:
        found.append(scored(engine.score(np.asarray(row, dtype=np.int64)), row))
        advance(len(found) / len(rows))
    return found


def scored(logits: Logits, row: Sequence[int]) -> Scored:
    """What logits (tokens, vocabulary) after each token of a row say of the next tokens."""
    before, following = logits[:-1], np.asarray(row[1:])
    highest = before.max(axis=1)
    norms = np.log(np.exp(before - highest[:, None]).sum(axis=1, dtype=np.float64)) + highest
    nats = norms - before[np.arange(len(before)), following]
    return Scored(logits.argmax(axis=1), np.nan_to_num(nats, nan=NO_NUMBER, posinf=NO_NUMBER).astype(np.float64))


def _prove(original: Original, asked: Asked, engine: CausalEngine, window: int) -> None:
    """Proves that the graph, which reads a row but for its last tokens and takes those by steps, answers as the source.

    At lengths up to the window, of which the proof takes at most `LONGEST`. Raises ExportFailed.
    """
    text = [token for row in asked.rows for token in row]
    rows = {len(row): row for length in (*LENGTHS, LONGEST) if (row := text[: min(length, window)])}

    def meant(batch: list[list[int]]) -> Logits:
        return np.stack([logits_of(original, row)[-LAST_STEPS:] for row in batch])

    def said(batch: list[list[int]]) -> Logits:
        return np.stack([_by_steps(engine, row) for row in batch])

    prove_shapes(original.model.config.model_type, [[row] for row in rows.values()], meant, said)


def _by_steps(engine: Seq2SeqEngine, row: Sequence[int]) -> Logits:
    """The logits (tokens, vocabulary) after the last tokens of a row, each of which is a step."""
    ids, first = np.asarray(row, dtype=np.int64), max(0, len(row) - LAST_STEPS)
    decoder = engine.encode(ids[:first])
    return np.concatenate(
        [decoder.step(ids[at : at + 1], np.zeros(1, dtype=np.int64)) for at in range(first, len(ids))]
    )


def floors_of(precision: Precision, floor: float | None) -> NextTokenFloors:
    """The floors: `floor` if given, else the precision's own. One that is given lets as many nats be lost."""
    usual = FLOORS[precision]
    return usual if floor is None else NextTokenFloors(floor, max(usual.nats, 1 - floor))


def compare_next_tokens(
    asked: Asked, said: Sequence[Scored], tokens: TextTokens, floors: NextTokenFloors
) -> Comparison[NextTokenVerification]:
    """Compares the variant's likeliest next tokens with the source's, and what both make of the texts."""
    same = [one.likeliest == other.likeliest for one, other in zip(asked.meant, said, strict=True)]
    every = np.concatenate(same)
    verification = NextTokenVerification(
        texts=len(said),
        tokens=len(every),
        data_set=asked.texts.name,
        agreement=float(every.mean()),
        agreement_floor=floors.agreement,
        nats=float(np.concatenate([one.nats for one in said]).mean()),
        source_nats=float(np.concatenate([one.nats for one in asked.meant]).mean()),
        nats_ceiling=floors.nats,
    )
    order = sorted((at for at, one in enumerate(same) if not one.all()), key=lambda at: float(same[at].mean()))
    differences = tuple(
        Difference(at, _shown(asked.meant[at], same[at], tokens), _shown(said[at], same[at], tokens))
        for at in order[:WORST]
    )
    return Comparison(verification, _broken(verification), differences)


def _broken(found: NextTokenVerification) -> str | None:
    if found.agreement < found.agreement_floor:
        return (
            f"{found.agreement:.2%} of {found.tokens} next tokens are the source's, "
            f"under the floor of {found.agreement_floor:.1%}"
        )
    if found.nats - found.source_nats > found.nats_ceiling:
        return (
            f"the texts take it {found.nats:.3f} nats a token and the source {found.source_nats:.3f}, "
            f"a loss over the ceiling of {found.nats_ceiling:.3f}"
        )
    return None


def _shown(one: Scored, same: NDArray[np.bool_], tokens: TextTokens) -> str:
    """The next tokens that differ, each with its place."""
    places = np.flatnonzero(~same)
    return " ".join(f"{at}:{tokens.decode([int(one.likeliest[at])])!r}" for at in places)[:SHOWN_CHARACTERS]


def record_prompts(
    engine: Seq2SeqEngine, tokens: TextTokens, texts: TextSet, rules: WritingRules, window: int
) -> tuple[GoldenSummary, ...]:
    """Golden answers to the openings of the shortest text, the median one, and that with odd characters in front.

    Each is written greedily, whatever the rules say, and alone, which is deterministic.
    """
    ordered = by_length([one.text for one in texts.texts])
    median = ordered[len(ordered) // 2]
    golden = []
    for text in dict.fromkeys((median, ordered[0], f"{ODD} {median}")):
        opening = _opening(text, tokens, max(1, window - GOLDEN_TOKENS))
        ids = tokens.encode(opening)
        written = write_on(engine, ids, rules.eos_token_ids, GOLDEN_TOKENS)
        golden.append(GoldenSummary(text=opening, token_ids=tuple(ids), written=written))
    return tuple(golden)


def _opening(text: str, tokens: TextTokens, most: int) -> str:
    """The first words of a text, at most so many tokens."""
    words = text.split(" ")[:GOLDEN_WORDS]
    while len(words) > 1 and len(tokens.encode(" ".join(words))) > most:
        words.pop()
    return " ".join(words)


def mean_length(
    engine: Seq2SeqEngine,
    prompts: Sequence[Sequence[int]],
    rules: WritingRules,
    window: int,
    clock: Clock,
    budget_s: float,
) -> float:
    """The mean tokens of a greedy answer to the prompts that fit into `budget_s`, of which one always is answered."""
    started, lengths = clock(), list[int]()
    for prompt in prompts:
        most = max(1, min(rules.max_new_tokens, LONGEST_ANSWER, window - len(prompt)))
        lengths.append(len(write_on(engine, prompt, rules.eos_token_ids, most)))
        if clock() - started > budget_s:
            break
    return max(1.0, fmean(lengths))


def _recognises(path: Path, config: Fields) -> bool:
    """True for a decoder with a language head, unless sentence-transformers made an embedder of it."""
    writes = has_head(config, *ARCHITECTURES)
    return writes and config.get("is_encoder_decoder") is not True and not (path / MODULES_FILE).exists()


def _agreement(manifest: CausalManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        "next tokens": share_with_floor(found.agreement, found.agreement_floor, found.tokens),
        "nats": f"{found.nats:.3f} (source {found.source_nats:.3f})",
        "tokens written": f"{manifest.output_tokens:.0f}",
    }


CAUSAL: Kind[CausalManifest, OpenCausal] = Kind(
    name="causal",
    described="a decoder-only checkpoint",
    task="generate",
    engines=("onnx",),
    recognises=_recognises,
    make=make_causal,
    profile=profile_causal,
    agreement=_agreement,
    profiles=lambda manifest: (
        TitledProfile(manifest.profile, "reading and first token", "batch"),
        TitledProfile(manifest.step_profile, "each later token", "rows"),
    ),
)

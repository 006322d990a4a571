"""Makes encoder-decoder variants: three ONNX graphs and two profiles, verified by the text that they generate.

Source and variant decode greedily in the comparison, because beam search could mask an engine's errors. Replicas
follow the checkpoint's generation config. A field that replicas do not support is refused by name, since the variant
would generate other text than its source.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, TypeAlias, TypedDict

from deployments.engines.base import NEXT_STEP_FILE, Seq2SeqEngine
from deployments.engines.host import read_host
from deployments.engines.opening import SEQ2SEQ_FILES, open_seq2seq_engine
from deployments.replica.summarize.abstractive import OpenSeq2Seq
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from deployments.replica.writing.beam_search import (
    SearchRules,
    search_rules,
    source_ids,
    write_golden,
    write_greedily,
)
from exporters.errors import Difference, SourceRefused
from exporters.kinds.generation import UNSUPPORTED, Fields, Harmless, check_supported, for_task, ids_of
from exporters.kinds.graphs import (
    QUANTISED,
    Quantise,
    export_seq2seq_graphs,
    place_graphs,
    quantise,
    quantise_weights,
    scratch_folder,
)
from exporters.kinds.kind import Kind, TitledProfile, rouge, share_with_floor, writes_anew
from exporters.kinds.original import Original, load_original
from exporters.plan import Step, Workbench
from exporters.profiling import Advance, Clock, Watch, measure_company, measure_reading_and_steps, watch_here
from exporters.sources.source import SourceFolder
from exporters.sources.texts import Text, TextSet, summarised_texts
from exporters.verification import (
    ODD,
    SHOWN_CHARACTERS,
    WORST,
    Comparison,
    Encode,
    by_length,
    lost,
    mean_rouge_l,
    rouge_l_lost,
)
from gateway.model.manifest import GenerationRules, GoldenSummary, Precision, Seq2SeqManifest, TokenVerification
from gateway.model.profile import ProfileDocument

Written: TypeAlias = tuple[int, ...]
WriteRows: TypeAlias = Callable[[list[list[int]], int], list[list[int]]]

MOST_TEXTS = 200
VERIFIED_TOKENS = 64
"""The most tokens generated per text in the comparison: engine errors show early, and some checkpoints never stop."""

ASKED_AT_ONCE = 4
NUM_BEAMS = 4
MAX_NEW_TOKENS = 128
"""The limit if no file of the checkpoint gives one; transformers' default of 20 tokens is too short for a summary."""

COMPANY_SHARE = 0.3
"""The share of the budget for profiles that goes to those of shared steps."""


def quantise_by_row(fp32: Path, int8: Path) -> None:
    """Quantises a graph to int8; of shared steps in blocks, where rows are rounded each by itself.

    `quantise` has activations rounded a whole tensor at a time, so that a text would depend on those it steps with.
    Seen by hand on a busy machine, DistilBART 6-6: a step of one row takes as long as with `quantise`, within 5 %. With
    blocks of 256 it takes 5 % longer, and one of 8 or 32 rows 10 % less.
    """
    if fp32.name == NEXT_STEP_FILE:
        quantise_weights(fp32, int8, tables=True)
    else:
        quantise(fp32, int8)


QUANTISED_BY_ROW: Quantise = {**QUANTISED, Precision.INT8: quantise_by_row}

USED = (
    "decoder_start_token_id",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_length",
    "min_new_tokens",
    "num_beams",
    "length_penalty",
    "early_stopping",
    "no_repeat_ngram_size",
    "forced_bos_token_id",
    "forced_eos_token_id",
)
UNKNOWN: Harmless = {**UNSUPPORTED, "repetition_penalty": (None, 1.0), "early_stopping": (None, True, False)}
"""Generation fields that replicas do not support, with the values that have no effect."""

GREEDY: dict[str, Any] = {
    "num_beams": 1,
    "do_sample": False,
    "early_stopping": False,
    "length_penalty": 1.0,
    "max_new_tokens": None,
    "min_new_tokens": None,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "typical_p": 1.0,
}
"""Overrides for greedy decoding: one beam, no sampling, lengths as total tokens."""


@dataclass(frozen=True)
class WritingFloors:
    """What a variant must reach to be served: the least share of outputs that equal the source's.

    For texts without summaries, also the least ROUGE-L against the source's output; for texts with them, the most
    ROUGE-L that the variant may lose beyond chance.
    """

    same_tokens: float
    rouge_l_to_source: float
    rouge_l_drop: float = 0.01


FLOORS = {
    Precision.FP32: WritingFloors(0.97, 0.99),
    Precision.INT8: WritingFloors(0.4, 0.8),
    Precision.INT8_WEIGHTS: WritingFloors(0.4, 0.8),
}
"""In fp32 outputs are equal but for near ties. In int8 one token of a close choice changes and the rest follows:
`bart-software` generates 60 % of 300 texts as in fp32, with a ROUGE-L of 0.86 against them, and no worse by the texts'
own summaries (+0.004, standard error 0.005). Random weights give 15 % equal outputs. So the share detects a broken
variant, and ROUGE-L judges its quality."""


@dataclass(frozen=True)
class Writer:
    """A loaded encoder-decoder with its generation rules.

    `generation` is its generation config as a summarisation pipeline uses it.
    """

    original: Original
    rules: GenerationRules
    generation: dict[str, Any]

    def encode(self, text: str) -> list[int]:
        """Token ids of the checkpoint's prefix and the text by its own tokenizer, cut at the window."""
        return self.original.encode(f"{self.rules.prefix}{text}")

    def write(self, rows: list[list[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy output of transformers for each row of token ids, without the start token.

        The overrides are set as the model's generation config, not as arguments: for an argument that equals the
        library's default, `generate` would use the checkpoint's value, such as its number of beams.
        """
        import torch
        from transformers import GenerationConfig

        model: Any = self.original.model  # whose `generate` is typed as a tensor
        most = min(max_new_tokens, self.rules.max_new_tokens)
        least = min(most, self.rules.min_new_tokens)
        lengths = {"max_length": most + 1, "min_length": least + 1 if least else 0}  # the start token counts
        model.generation_config = GenerationConfig(**{**self.generation, **GREEDY, **lengths})
        with torch.inference_mode():
            written = model.generate(**self.original.tensors(rows))
        found: list[list[int]] = written[:, 1:].tolist()
        return found


class _Profiles(TypedDict):
    """The manifest's profiles."""

    profile: ProfileDocument
    step_profile: ProfileDocument
    company_profile: ProfileDocument | None


def make_seq2seq(bench: Workbench) -> Seq2SeqManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan, settings = bench.plan, bench.settings
    writer = load_writer(bench.source)
    rules, window, pad_id = writer.rules, writer.original.window, writer.original.pad_id
    writer.original.save_tokenizer(bench.folder)
    search = search_rules(rules, pad_id, beams=1, max_new_tokens=VERIFIED_TOKENS)
    texts, meant = _ask(bench, writer, search)
    bench.progress(Step.EXPORTING, 0.0)
    with scratch_folder(bench) as scratch:
        shared = _export_graphs(writer, texts, scratch, plan.threads)
        del writer  # free its memory before quantising and profiling
        place_graphs(bench, scratch, SEQ2SEQ_FILES, QUANTISED_BY_ROW if shared else None)
    engine = open_seq2seq_engine(plan.engine, bench.folder, plan.threads)
    tokens = TextTokens.open(bench.folder / TOKENIZER_FILE)
    said = variant_writing(engine, tokens, texts, rules.prefix, window, search, bench.advance(Step.VERIFYING))
    floors = floors_of(plan.precision, settings.floor, settings.drop)
    verification = compare_writing(meant, said, tokens, texts, floors).accepted(bench)
    golden = record_writing(engine, tokens, texts, rules, window, pad_id)
    watch = bench.profiling()
    profiles = _profiles(engine, window, golden, rules, plan.threads, watch)
    return Seq2SeqManifest(
        **bench.shared(),
        max_tokens=window,
        pad_token_id=pad_id,
        generation=rules,
        output_tokens=max(1.0, fmean(map(len, said))),
        verification=verification,
        self_test=golden,
        **profiles,
    )


def _export_graphs(writer: Writer, texts: TextSet, scratch: Path, threads: int) -> bool:
    """Writes the three graphs; true if texts may share the later steps, which is proven then.

    False for a family that keeps optimum's graph of later steps. Raises ExportFailed.
    """
    from deployments.engines.onnx_seq2seq import OnnxSeq2Seq  # imports ONNX Runtime, as the next does torch
    from exporters.kinds.stepping import DECODERS, StepProof, export_shared_steps

    original = writer.original
    if original.model.config.model_type not in DECODERS:
        export_seq2seq_graphs(original.model, scratch)
        return False
    tokens = [token for text in texts.texts for token in writer.encode(text.text)]
    proof = StepProof(original, tokens, writer.rules.decoder_start_token_id)
    export_seq2seq_graphs(original.model, scratch)
    export_shared_steps(original.model, scratch)
    proof.check(OnnxSeq2Seq.open(scratch, threads))
    return True


def profile_seq2seq(opened: OpenSeq2Seq, threads: int, budget_s: float, advance: Advance) -> Seq2SeqManifest:
    """The variant's manifest with both profiles measured now on this host."""
    manifest, watch = opened.manifest, watch_here(budget_s, advance)
    profiles = _profiles(opened.engine, manifest.max_tokens, manifest.self_test, manifest.generation, threads, watch)
    return manifest.model_copy(update=profiles)


def load_writer(source: SourceFolder) -> Writer:
    """Loads an encoder-decoder in fp32 and its tokenizer. Raises SourceRefused."""
    original = load_original(source.path, source.location, "AutoModelForSeq2SeqLM", "an encoder-decoder")
    config, given = original.model.config.to_dict(), original.model.generation_config
    generation = summarising(given.to_dict() if given else {}, config)
    lower_cased = lower_cases(json.loads(original.tokenizer.backend_tokenizer.to_str()))
    return Writer(original, rules_of(generation, config, source.location, lower_cased), generation)


def _profiles(
    engine: Seq2SeqEngine,
    window: int,
    golden: tuple[GoldenSummary, ...],
    rules: GenerationRules,
    threads: int,
    watch: Watch,
) -> _Profiles:
    """The profiles of encoding, of later steps and of shared ones on this host, of the longest golden text."""
    longest = max((one.token_ids for one in golden), key=len)
    start, host = rules.decoder_start_token_id, read_host().kind
    alone, company = watch.part(0, 1 - COMPANY_SHARE), watch.part(1 - COMPANY_SHARE, 1)
    profile, steps = measure_reading_and_steps(engine, window, longest, start, threads, host, alone)
    together = measure_company(engine, window, longest, start, threads, host, company)
    return _Profiles(profile=profile, step_profile=steps, company_profile=together)


def _ask(bench: Workbench, writer: Writer, search: SearchRules) -> tuple[TextSet, list[Written]]:
    """The source's output for as many texts as fit into the time budget."""
    texts = summarised_texts(bench.source).spread(MOST_TEXTS)
    budget_s = bench.settings.verification_budget_s / 2  # the other half is for the variant
    advance = bench.advance(Step.ASKING)
    return source_writing(writer.encode, writer.write, texts, search, time.perf_counter, budget_s, advance)


def summarising(generation: Fields, config: Fields) -> dict[str, Any]:
    """The generation config as transformers' summarisation pipeline uses it.

    `config` is the checkpoint's config.json: its `task_specific_params.summarization` overrides the generation config.
    """
    return for_task(generation, config, "summarization", {*USED, *UNKNOWN}, MAX_NEW_TOKENS)


def prefix_of(config: Fields) -> str:
    """The prefix of every text to summarise (T5), or an empty string."""
    special = (config.get("task_specific_params") or {}).get("summarization") or {}
    return str(special.get("prefix") or "")


def rules_of(generation: Fields, config: Fields, location: str, lower_cased: bool) -> GenerationRules:
    """The generation rules of a generation config. Raises SourceRefused, which names the field."""
    check_supported(generation, UNKNOWN, location)
    starts = (generation.get(name) for name in ("decoder_start_token_id", "bos_token_id"))
    start = next((token for token in starts if token is not None), None)
    if start is None:
        raise SourceRefused(f"{location}: no decoder_start_token_id to begin a summary with")
    most = generation.get("max_new_tokens")
    least = generation.get("min_new_tokens")
    penalty = generation.get("length_penalty")
    return GenerationRules(
        decoder_start_token_id=int(start),
        eos_token_ids=ids_of(generation.get("eos_token_id")),
        max_new_tokens=max(1, int(most if most is not None else generation["max_length"] - 1)),
        min_new_tokens=max(0, int(least if least is not None else (generation.get("min_length") or 0) - 1)),
        num_beams=_beams(generation),
        length_penalty=1.0 if penalty is None else float(penalty),
        early_stopping=bool(generation.get("early_stopping")),
        no_repeat_ngram_size=int(generation.get("no_repeat_ngram_size") or 0),
        forced_bos_token_id=_one(generation, "forced_bos_token_id", location),
        forced_eos_token_id=_one(generation, "forced_eos_token_id", location),
        prefix=prefix_of(config),
        lower_cased=lower_cased,
    )


def lower_cases(tokenizer: Fields) -> bool:
    """True if a tokenizer.json lower-cases its input, so that the model generates no capitals."""
    return _lowers(tokenizer.get("normalizer"))


def _lowers(normalizer: Any) -> bool:
    if not isinstance(normalizer, Mapping):
        return False
    if normalizer.get("type") == "Sequence":
        return any(_lowers(one) for one in normalizer.get("normalizers", ()))
    return normalizer.get("type") == "Lowercase" or bool(normalizer.get("lowercase"))


def _beams(generation: Fields) -> int:
    """The checkpoint's number of beams; if it names none, the usual number of summarisers."""
    beams = int(generation.get("num_beams") or 1)
    return beams if beams > 1 else NUM_BEAMS


def _one(generation: Fields, name: str, location: str) -> int | None:
    ids = ids_of(generation.get(name))
    if len(ids) > 1:
        raise SourceRefused(f"{location}: its generation config has more than one {name}")
    return ids[0] if ids else None


def source_writing(
    encode: Encode,
    write: WriteRows,
    texts: TextSet,
    rules: SearchRules,
    clock: Clock,
    budget_s: float,
    advance: Advance,
) -> tuple[TextSet, list[Written]]:
    """The source's output for each text, and the texts that fitted into `budget_s`: all, or at least one batch.

    Each batch samples the whole set, so that a partial result is still representative.
    """
    batches = -(-len(texts.texts) // ASKED_AT_ONCE)
    started, asked, written = clock(), list[Text](), list[Written]()
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
    return TextSet(texts.name, tuple(asked)), written


def variant_writing(
    engine: Seq2SeqEngine,
    tokens: TextTokens,
    texts: TextSet,
    prefix: str,
    window: int,
    rules: SearchRules,
    advance: Advance,
) -> list[Written]:
    """The variant's output for each text, one text at a time."""
    found = []
    for one in texts.texts:
        found.append(write_greedily(engine, source_ids(tokens, one.text, prefix, window), rules))
        advance(len(found) / len(texts.texts))
    return found


def stripped(row: Sequence[int], rules: SearchRules) -> Written:
    """A row of transformers' output without start, end and padding tokens, cut at the first end."""
    ends = [at for at, token in enumerate(row) if token in rules.eos_token_ids]
    left_out = {*rules.eos_token_ids, rules.decoder_start_token_id, rules.pad_token_id}
    return tuple(token for token in row[: ends[0] if ends else None] if token not in left_out)


def floors_of(precision: Precision, floor: float | None, drop: float) -> WritingFloors:
    """The floors: `floor` if given replaces both floors of agreement, else the precision's own."""
    usual = FLOORS[precision]
    if floor is None:
        return WritingFloors(usual.same_tokens, usual.rouge_l_to_source, drop)
    return WritingFloors(floor, floor, drop)


def compare_writing(
    source: Sequence[Written],
    variant: Sequence[Written],
    tokens: TextTokens,
    texts: TextSet,
    floors: WritingFloors,
) -> Comparison[TokenVerification]:
    """Compares the variant's output with the source's, and both with the texts' summaries if they have them.

    A text for which both generate nothing does not count as equal.
    """
    meant, said = [tokens.decode(one) for one in source], [tokens.decode(one) for one in variant]
    against = rouge_l_lost(meant, said, texts.answers, floors.rouge_l_drop) if texts.answers else None
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
    return Comparison(verification, _broken(verification, floors, silent), tuple(differences[:WORST]))


def record_writing(
    engine: Seq2SeqEngine, tokens: TextTokens, texts: TextSet, rules: GenerationRules, window: int, pad_id: int
) -> tuple[GoldenSummary, ...]:
    """Golden outputs for the text of median length, the shortest, and the median with odd characters in front.

    Each runs alone, which is deterministic. No long text: every replica runs them all at start.
    """
    ordered = by_length([one.text for one in texts.texts])
    median = ordered[len(ordered) // 2]
    golden = []
    for text in dict.fromkeys((median, ordered[0], f"{ODD} {median}")):
        ids = source_ids(tokens, text, rules.prefix, window)
        written = write_golden(engine, ids, rules, pad_id)
        golden.append(GoldenSummary(text=text, token_ids=tuple(ids), written=written))
    return tuple(golden)


def _broken(found: TokenVerification, floors: WritingFloors, silent: int) -> str | None:
    if found.same_tokens < found.same_tokens_floor:
        nothing = f" (for {silent} of them the source generates nothing, which does not count)" if silent else ""
        return (
            f"{found.same_tokens:.0%} of {found.texts} texts get the source's summary, "
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


def _agreement(manifest: Seq2SeqManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        "written alike": share_with_floor(found.same_tokens, found.same_tokens_floor, found.texts),
        "ROUGE-L against the source": f"{found.rouge_l_to_source:.3f}",
        "ROUGE-L": rouge(found.rouge_l),
        "source ROUGE-L": rouge(found.source_rouge_l),
        "tokens written": f"{manifest.output_tokens:.0f}",
        "steps": "shared" if manifest.shares_steps else "one text's each",
    }


TRANSLATE = ("marian", "m2m_100", "nllb-moe")
"""Families whose checkpoints translate; of other families some do."""


def _titled(manifest: Seq2SeqManifest) -> Sequence[TitledProfile]:
    company = manifest.company_profile
    return (
        TitledProfile(manifest.profile, "reading and first step", "batch"),
        TitledProfile(manifest.step_profile, "each later step", "rows"),
        *([TitledProfile(company, "each later step of several texts", "texts")] if company else []),
    )


def _recognises(path: Path, config: Fields) -> bool:
    """True for an encoder-decoder without a classification head, but for those that only translate."""
    return writes_anew(config) and config.get("model_type") not in TRANSLATE


SEQ2SEQ: Kind[Seq2SeqManifest, OpenSeq2Seq] = Kind(
    name="seq2seq",
    described="an encoder-decoder",
    task="summarize",
    engines=("onnx",),
    recognises=_recognises,
    make=make_seq2seq,
    profile=profile_seq2seq,
    agreement=_agreement,
    profiles=_titled,
)

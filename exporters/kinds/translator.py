"""Makes translators of encoder-decoders: as those that summarise, told from which language into which.

The languages are the checkpoint's own: those of its tokenizer (mBART, M2M-100, NLLB), the pair or the targets' tokens
of a Marian, or the pairs that its config names (T5). A checkpoint that names none is refused. It is verified in one
direction, on sentences; its own `verification.jsonl` may have them with a `translation` each.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tokenizers import Tokenizer, processors

from deployments.engines.base import Seq2SeqEngine
from deployments.engines.host import read_host
from deployments.engines.opening import SEQ2SEQ_FILES, open_seq2seq_engine
from deployments.replica.tokens import TOKENIZER_FILE, TextTokens
from deployments.replica.translate.replica import OpenTranslator, golden_rules
from deployments.replica.translate.translating import cut_to, encoded
from deployments.replica.writing.beam_search import SearchRules, search_rules, write_golden, write_greedily
from exporters.errors import SourceRefused
from exporters.kinds.generation import Fields, for_task
from exporters.kinds.graphs import export_seq2seq_graphs, place_graphs, scratch_folder
from exporters.kinds.kind import Kind, TitledProfile, rouge, share_with_floor, writes_anew
from exporters.kinds.original import Original, load_original
from exporters.kinds.seq2seq import (
    MAX_NEW_TOKENS,
    MOST_TEXTS,
    UNKNOWN,
    USED,
    VERIFIED_TOKENS,
    Writer,
    Written,
    compare_writing,
    floors_of,
    rules_of,
    source_writing,
)
from exporters.plan import Step, Workbench
from exporters.profiling import Advance, Watch, measure_reading_and_steps, watch_here
from exporters.sources.source import SourceFolder, read_object
from exporters.sources.texts import TextSet, translated_texts
from exporters.verification import ODD, by_length
from gateway.model.manifest import GenerationRules, GoldenSummary
from gateway.model.profile import ProfileDocument
from gateway.tasks.languages import language_of
from gateway.tasks.translate import Direction, LanguageTokens, Pair, TranslatorManifest, directions

TRANSLATION = re.compile(r"translation_(\w+?)_to_(\w+)")
"""How a config's `task_specific_params` name a pair of languages."""

MARKED = re.compile(r">>([^<>]+)<<")
"""How a Marian names the token of a target language."""

USUAL = ("en", "de", "fr", "es", "it")
"""Languages that are verified in where a checkpoint has several, the earlier first."""


@dataclass(frozen=True)
class Spoken:
    """What a checkpoint translates: by pairs, or each language into each other."""

    pairs: tuple[Pair, ...] = ()
    languages: LanguageTokens | None = None

    def usual(self) -> Direction:
        """The direction to verify in: from the most usual language into the next, or the first that there is."""
        asked = [(one, other) for one in USUAL for other in USUAL if one != other]
        asked += [(one.source, one.target) for one in self.pairs]
        if self.languages is not None:
            first, second, *_ = self.languages.ids
            asked.append((first, second))
        found = (directions(self.pairs, self.languages, one, other) for one, other in asked)
        return next(each[0] for each in found if each)


@dataclass(frozen=True)
class Interpreter:
    """A loaded translator, with what it translates, and the direction that it is verified in."""

    writer: Writer
    reference: Any
    spoken: Spoken
    direction: Direction

    def encode(self, text: str) -> list[int]:
        """Token ids of a text by the checkpoint's own tokenizer, as transformers' pipeline gives them to the model."""
        direction, tokenizer = self.direction, self.reference
        if direction.first is not None:
            tokenizer.src_lang = direction.source
        marked = self.spoken.languages is None and direction.before
        prefix = tokenizer.convert_ids_to_tokens(direction.before[0]) + " " if marked else direction.prefix
        ids: list[int] = tokenizer(f"{prefix}{text}", truncation=True, max_length=self.writer.original.window)[
            "input_ids"
        ]
        return ids


def make_translator(bench: Workbench) -> TranslatorManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan, settings = bench.plan, bench.settings
    loaded = load_interpreter(bench.source)
    spoken, direction = loaded.spoken, loaded.direction
    rules, window, pad_id = loaded.writer.rules, loaded.writer.original.window, loaded.writer.original.pad_id
    save_tokenizer(loaded.writer.original, spoken, bench.folder)
    search = search_rules(golden_rules(rules, direction), pad_id, beams=1, max_new_tokens=VERIFIED_TOKENS)
    texts = translated_texts(bench.source).spread(MOST_TEXTS)
    budget_s = settings.verification_budget_s / 2  # the other half is for the variant
    advance = bench.advance(Step.ASKING)
    texts, meant = source_writing(
        loaded.encode, loaded.writer.write, texts, search, time.perf_counter, budget_s, advance
    )
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        export_seq2seq_graphs(loaded.writer.original.model, scratch)
        del loaded  # free its memory before quantising and profiling
        place_graphs(bench, scratch, SEQ2SEQ_FILES)
    engine = open_seq2seq_engine(plan.engine, bench.folder, plan.threads)
    tokens = TextTokens.open(bench.folder / TOKENIZER_FILE)
    read = [cut_to(tokens, encoded(tokens, one.text, direction)[0], direction, window) for one in texts.texts]
    said = _written(engine, read, search, bench.advance(Step.VERIFYING))
    floors = floors_of(plan.precision, settings.floor, settings.drop)
    verification = compare_writing(meant, said, tokens, texts, floors).accepted(bench)
    golden = _golden(engine, tokens, texts, golden_rules(rules, direction), direction, window, pad_id)
    profile, step_profile = _profiles(engine, window, golden, rules, plan.threads, bench.profiling())
    return TranslatorManifest(
        **bench.shared(),
        max_tokens=window,
        pad_token_id=pad_id,
        pairs=spoken.pairs,
        languages=spoken.languages,
        generation=rules,
        output_tokens=max(1.0, fmean(map(len, said))),
        input_tokens=fmean(map(len, read)),
        verified=(direction.source, direction.target),
        verification=verification,
        self_test=golden,
        profile=profile,
        step_profile=step_profile,
    )


def profile_translator(opened: OpenTranslator, threads: int, budget_s: float, advance: Advance) -> TranslatorManifest:
    """The variant's manifest with both profiles measured now on this host."""
    manifest, watch = opened.manifest, watch_here(budget_s, advance)
    profile, step_profile = _profiles(
        opened.engine, manifest.max_tokens, manifest.self_test, manifest.generation, threads, watch
    )
    return manifest.model_copy(update={"profile": profile, "step_profile": step_profile})


def load_interpreter(source: SourceFolder) -> Interpreter:
    """Loads a translator in fp32, its tokenizer, and what it translates. Raises SourceRefused."""
    from transformers import AutoTokenizer

    original = load_original(source.path, source.location, "AutoModelForSeq2SeqLM", "an encoder-decoder")
    reference: Any = AutoTokenizer.from_pretrained(source.path, trust_remote_code=False, local_files_only=True)
    config, given = original.model.config.to_dict(), original.model.generation_config
    file = source.path / "tokenizer_config.json"
    named = read_object(file, source.location) if file.exists() else {}
    spoken = spoken_by(config, named, reference, source.location)
    direction = spoken.usual()
    generation = translating(given.to_dict() if given else {}, config)
    rules = translation_rules(generation, config, source.location)
    if direction.first is not None:
        generation["forced_bos_token_id"] = direction.first
    return Interpreter(Writer(original, rules, generation), reference, spoken, direction)


def spoken_by(config: Fields, named: Fields, tokenizer: Any, location: str) -> Spoken:
    """What a checkpoint translates, by its config, `tokenizer_config.json` and tokenizer. Raises SourceRefused."""
    tasks = config.get("task_specific_params") or {}
    given = {(pair[1], pair[2]): task for name, task in tasks.items() if (pair := TRANSLATION.fullmatch(name))}
    tokens = language_tokens(tokenizer)
    if tokens is not None and not given:
        return Spoken(languages=tokens)
    if tokens is not None:
        told = [one for pair in given for one in directions((), tokens, *pair)]
        return Spoken(
            tuple(
                Pair(
                    source=one.source,
                    target=one.target,
                    token_id=tokens.ids[one.source],
                    behind=tokens.behind,
                    first=one.first,
                )
                for one in told
            )
        )
    if given:
        pairs = [
            Pair(source=one, target=other, prefix=str(task.get("prefix") or "")) for (one, other), task in given.items()
        ]
        return Spoken(tuple(pairs))
    source, target = named.get("source_lang"), named.get("target_lang")
    marks = {found[1]: at for piece, at in tokenizer.get_vocab().items() if (found := MARKED.fullmatch(piece))}
    if source and marks:
        return Spoken(tuple(Pair(source=source, target=one, token_id=at) for one, at in sorted(marks.items())))
    if source and target:
        return Spoken((Pair(source=source, target=target),))
    raise SourceRefused(
        f"{location}: says nowhere which languages it translates; name them in its config.json, as "
        f'"task_specific_params": {{"translation_en_to_it": {{"prefix": ""}}}}'
    )


def language_tokens(tokenizer: Any) -> LanguageTokens | None:
    """The tokens of languages that a tokenizer marks texts with, and on which side; None for one that marks none."""
    if not hasattr(tokenizer, "src_lang"):
        return None
    ids = getattr(tokenizer, "lang_code_to_id", None)
    if not ids:
        special = tokenizer.additional_special_tokens
        ids = {one: tokenizer.convert_tokens_to_ids(one) for one in special if language_of(one)}
    if len(ids) < 2:
        return None
    first = next(iter(ids))
    tokenizer.src_lang = first
    return LanguageTokens(
        ids={code: int(at) for code, at in ids.items()}, behind=tokenizer("a")["input_ids"][-1] == ids[first]
    )


def translating(generation: Fields, config: Fields) -> dict[str, Any]:
    """The generation config as transformers' pipeline uses it for the first pair that the config names, if any."""
    names = [name for name in config.get("task_specific_params") or {} if TRANSLATION.fullmatch(name)]
    return for_task(generation, config, next(iter(names), ""), {*USED, *UNKNOWN}, MAX_NEW_TOKENS)


def translation_rules(generation: Fields, config: Fields, location: str) -> GenerationRules:
    """The generation rules of a translator. Raises SourceRefused, which names the field.

    Single tokens that are never to be written are taken as such: Marian's checkpoints name their padding.
    """
    banned = generation.get("bad_words_ids") or []
    if any(len(one) != 1 for one in banned):
        raise SourceRefused(f"{location}: its generation config bans words of several tokens, which is not supported")
    rules = rules_of({**generation, "bad_words_ids": None}, config, location, lower_cased=False)
    suppressed = tuple(sorted({int(one[0]) for one in banned}))
    renormalized = bool(generation.get("renormalize_logits"))
    return rules.model_copy(update={"prefix": "", "suppressed_token_ids": suppressed, "renormalized": renormalized})


def save_tokenizer(original: Original, spoken: Spoken, folder: Path) -> None:
    """Writes tokenizer.json; one that marks texts with their language leaves that to the replica."""
    original.save_tokenizer(folder)
    if spoken.languages is None and not any(one.first is not None for one in spoken.pairs):
        return
    file = str(folder / TOKENIZER_FILE)
    tokenizer, end = Tokenizer.from_file(file), str(original.tokenizer.eos_token)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.save(file)


def _written(engine: Seq2SeqEngine, read: Sequence[list[int]], search: SearchRules, advance: Advance) -> list[Written]:
    """The variant's greedy output for each text, one text at a time."""
    found = []
    for ids in read:
        found.append(write_greedily(engine, ids, search))
        advance(len(found) / len(read))
    return found


def _golden(
    engine: Seq2SeqEngine,
    tokens: TextTokens,
    texts: TextSet,
    rules: GenerationRules,
    direction: Direction,
    window: int,
    pad_id: int,
) -> tuple[GoldenSummary, ...]:
    """Golden outputs for the text of median length, the shortest, and the median with odd characters in front."""
    ordered = by_length([one.text for one in texts.texts])
    median = ordered[len(ordered) // 2]
    golden = []
    for text in dict.fromkeys((median, ordered[0], f"{ODD} {median}")):
        ids = cut_to(tokens, encoded(tokens, text, direction)[0], direction, window)
        golden.append(GoldenSummary(text=text, token_ids=tuple(ids), written=write_golden(engine, ids, rules, pad_id)))
    return tuple(golden)


def _profiles(
    engine: Seq2SeqEngine,
    window: int,
    golden: tuple[GoldenSummary, ...],
    rules: GenerationRules,
    threads: int,
    watch: Watch,
) -> tuple[ProfileDocument, ProfileDocument]:
    """The profiles of encoding and of later steps on this host; the longest golden text is the source."""
    longest = max((one.token_ids for one in golden), key=len)
    start, host = rules.decoder_start_token_id, read_host().kind
    return measure_reading_and_steps(engine, window, longest, start, threads, host, watch)


def _agreement(manifest: TranslatorManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        "written alike": share_with_floor(found.same_tokens, found.same_tokens_floor, found.texts),
        "verified": " to ".join(manifest.verified),
        "ROUGE-L against the source": f"{found.rouge_l_to_source:.3f}",
        "ROUGE-L": rouge(found.rouge_l),
        "source ROUGE-L": rouge(found.source_rouge_l),
        "tokens written": f"{manifest.output_tokens:.0f}",
    }


TRANSLATOR: Kind[TranslatorManifest, OpenTranslator] = Kind(
    name="translator",
    described="a translator",
    task="translate",
    engines=("onnx",),
    recognises=lambda path, config: writes_anew(config),  # what it translates is looked for when it is made
    make=make_translator,
    profile=profile_translator,
    agreement=_agreement,
    profiles=lambda manifest: (
        TitledProfile(manifest.profile, "reading and first step", "batch"),
        TitledProfile(manifest.step_profile, "each later step", "rows"),
    ),
)

"""Makes embedder variants: an encoder with its pooling as one ONNX graph, verified by its vectors.

How vectors are pooled, cut and normalised is the checkpoint's own sentence-transformers configuration. Pooling is part
of the graph; vectors are normalised by the replica, since a request may say otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.engines.base import Logits
from deployments.engines.opening import ONNX_FILE, EngineSize, open_engine_named
from deployments.replica.embedding import OpenEmbedder, TextReader, Vectors, unit_length
from deployments.replica.tokens import TOKENIZER_FILE
from exporters.errors import Difference, SourceRefused
from exporters.kinds.graphs import export_vectors, place_graphs, scratch_folder
from exporters.kinds.kind import Kind, one_profile, profiled_in_one_pass, rouge, share_with_floor
from exporters.kinds.original import Original, load_original
from exporters.kinds.seq2seq import lower_cases
from exporters.plan import Step, Workbench
from exporters.profiling import Advance, measure_grid
from exporters.sources.source import SourceFolder, read_object
from exporters.sources.texts import OWN_TEXTS, SOFTWARE, SUMMARIES, read_texts, summarised_texts
from exporters.verification import (
    BATCH,
    SHOWN_CHARACTERS,
    WORST,
    Comparison,
    RunRows,
    batched,
    record_self_test,
    run_all,
)
from gateway.model.manifest import Precision
from gateway.tasks.embed import EMBED, EmbedderManifest, EmbeddingVerification

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MODULES_FILE = "modules.json"
LENGTH_FILE = "sentence_bert_config.json"
PROMPTS_FILE = "config_sentence_transformers.json"
KNOWN_MODULES = ("Transformer", "Pooling", "Normalize")
UNUSED_HEADS = ("pooler.",)

PAIRS, LONG_TEXTS = 200, 20
"""Verification texts of a checkpoint without its own: package descriptions with their synopses, and long documents."""

ALONE = 48
"""Texts that are run alone too, and in batches of unlike lengths: padding must hardly move a vector."""

NEAR = 0.02
"""How much farther, as a cosine by the source's own vectors, a text may be that still counts as the nearest."""

POOLINGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
"""The poolings of sentence-transformers, in the order in which it joins their vectors where there are several."""


@dataclass(frozen=True)
class VectorFloors:
    """What a variant has to reach.

    That is the least cosine of a text's two vectors, the least share of equal neighbours, the most that padding moves a
    vector (one less the cosine), and the most mean reciprocal rank that may be lost.
    """

    least_cosine: float
    neighbours: float
    moved: float
    drop: float = 0.01


FLOORS = {
    Precision.FP32: VectorFloors(0.9999, 0.99, 1e-5),
    Precision.INT8: VectorFloors(0.95, 0.95, 0.05),
    Precision.INT8_WEIGHTS: VectorFloors(0.99, 0.97, 1e-5),
}
"""In int8, the searches of MiniLM-L6 and L3 find in 99 % and all cases what fp32 finds; their least cosines are 0.985
and 0.992. Vectors of L6 move by up to 0.012 among texts of other lengths, 0.031 on other texts than these, since a
batch shares the scale of its numbers. With int8 weights alone nothing of a batch is shared: floors set by hand."""


@dataclass(frozen=True)
class Configuration:
    """What a checkpoint's own files say of its vectors: the window in tokens is None if they say nothing."""

    pooling: tuple[str, ...]
    normalized: bool
    window: int | None
    prompts: dict[str, str]
    default_prompt: str | None


@dataclass(frozen=True)
class Searched:
    """What is compared: texts, and what is looked for among them, each with its token ids.

    `queries` are the texts' summaries, of which each should find its own text, or where they have none the texts
    themselves, of which each should find what is nearest beside itself. `long` are looked for by nobody.
    """

    name: str
    texts: list[str]
    queries: list[str] | None
    long: list[str]

    @property
    def every(self) -> list[str]:
        """Every text in one list: texts, queries, long ones."""
        return [*self.texts, *(self.queries or []), *self.long]


def make_embedder(bench: Workbench) -> EmbedderManifest:
    """Makes the variant in the bench's folder and returns its manifest, unwritten. Raises what `export` raises."""
    plan, location = bench.plan, bench.source.location
    found = read_configuration(bench.source.path, location)
    original = load_original(bench.source.path, location, "AutoModel", "an encoder", UNUSED_HEADS)
    original = replace(original, window=min(found.window or original.window, original.window))
    window, pad_id = original.window, original.pad_id
    _check_case(bench.source.path, original, location)
    original.save_tokenizer(bench.folder)
    pooled = pooled_tokens(original.model, found.pooling)
    reader = TextReader.open(bench.folder / TOKENIZER_FILE, window, found.prompts, found.default_prompt)
    texts = searched_texts(bench.source)
    before = found.prompts.get(found.default_prompt, "") if found.default_prompt else ""
    rows = [original.encode(before + one) for one in texts.every]
    meant = run_all(rows, runner(original, pooled), bench.advance(Step.ASKING))
    with scratch_folder(bench) as scratch:
        bench.progress(Step.EXPORTING, 0.0)
        export_vectors(original.model, pooled, scratch / ONNX_FILE)
        del original, pooled  # free their memory before quantising and profiling
        place_graphs(bench, scratch, (ONNX_FILE,))
    engine = open_engine_named(plan.engine, bench.folder, EngineSize(plan.threads, 1, window))
    floors = floors_of(plan.precision, bench.settings.floor, bench.settings.drop)
    said = said_of(rows, batched(engine, pad_id), bench.advance(Step.VERIFYING))
    verification = compare_vectors(meant, said, texts, floors).accepted(bench)
    self_test = record_self_test(engine, reader.ids, window, texts.every)
    return EmbedderManifest(
        **bench.shared(),
        max_tokens=window,
        pad_token_id=pad_id,
        dimensions=meant.shape[1],
        pooling=found.pooling,
        normalized=found.normalized,
        prompts=found.prompts,
        default_prompt=found.default_prompt,
        verification=verification,
        self_test=self_test,
        profile=measure_grid(engine, window, self_test, plan.threads, bench.profiling()),
    )


def read_configuration(folder: Path, location: str) -> Configuration:
    """Reads the sentence-transformers configuration of a checkpoint; without one, the mean of its tokens is meant.

    Raises SourceRefused for a part that this kind does not know.
    """
    length = _object(folder / LENGTH_FILE, location)
    prompts = _object(folder / PROMPTS_FILE, location)
    modules = _modules(folder, location)
    pooling: tuple[str, ...] = ("mean",)
    if "Pooling" in modules:
        pooling = _poolings(read_object(folder / modules["Pooling"] / "config.json", location), location)
    named = {str(name): str(text) for name, text in (prompts.get("prompts") or {}).items() if text}
    default = prompts.get("default_prompt_name")
    window = length.get("max_seq_length")
    return Configuration(
        pooling,
        normalized="Normalize" in modules,
        window=None if window is None else int(window),
        prompts=named,
        default_prompt=default if default in named else None,
    )


def _object(file: Path, location: str) -> Mapping[str, Any]:
    return read_object(file, location) if file.exists() else {}


def _modules(folder: Path, location: str) -> dict[str, str]:
    """The folder of each module by the last part of its type. Raises SourceRefused for one that is not known."""
    if not (folder / MODULES_FILE).exists():
        return {}
    found: dict[str, str] = {}
    for one in json.loads((folder / MODULES_FILE).read_bytes()):
        kind, path = str(one["type"]).rsplit(".", 1)[-1], str(one.get("path", ""))
        if kind not in KNOWN_MODULES:
            raise SourceRefused(f"{location}: its {MODULES_FILE} asks for {one['type']}, which is not supported")
        if kind == "Transformer" and path:
            raise SourceRefused(f"{location}: its {MODULES_FILE} has the transformer in a folder of its own, {path}")
        found[kind] = path
    return found


def _poolings(config: Mapping[str, Any], location: str) -> tuple[str, ...]:
    unknown = sorted(
        name for name in config if name.startswith("pooling_mode_") and config[name] and name not in POOLINGS
    )
    if unknown:
        raise SourceRefused(f"{location}: its pooling asks for {unknown[0]}, which is not supported")
    if config.get("include_prompt") is False:
        raise SourceRefused(f"{location}: its pooling leaves out the prompt (include_prompt), which is not supported")
    return tuple(short for name, short in POOLINGS.items() if config.get(name)) or ("mean",)


def _check_case(folder: Path, original: Original, location: str) -> None:
    """Raises SourceRefused if texts are to be lower-cased before a tokenizer that keeps capitals."""
    if _object(folder / LENGTH_FILE, location).get("do_lower_case") is not True:
        return
    if not lower_cases(json.loads(original.tokenizer.backend_tokenizer.to_str())):
        raise SourceRefused(f"{location}: its {LENGTH_FILE} lower-cases texts, and its tokenizer keeps capitals")


def pooled_tokens(model: PreTrainedModel, pooling: Sequence[str]) -> torch.nn.Module:
    """A module whose output (texts, dimensions) joins the poolings of the transformer's unmasked tokens."""
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            return torch.cat([_WAYS[way](hidden, mask) for way in pooling], dim=1)

    return Pooled()


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1)


def _mean_sqrt_len(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden * mask).sum(dim=1) / mask.sum(dim=1).sqrt()


def _weighted_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean in which a token counts as much as its place, from 1."""
    weights = mask.cumsum(dim=1) * mask
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)


def _max(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (hidden + (mask - 1) * 1e9).amax(dim=1)


def _last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The last unmasked token: the one after which none follows."""
    ends = mask * (mask.cumsum(dim=1) == mask.sum(dim=1, keepdim=True)).to(hidden.dtype)
    return (hidden * ends).sum(dim=1)


_WAYS: Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": lambda hidden, mask: hidden[:, 0],
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len": _mean_sqrt_len,
    "weighted_mean": _weighted_mean,
    "last": _last,
}


def runner(original: Original, pooled: torch.nn.Module) -> RunRows:
    """A function that gives the source's vectors of a batch, padded to its longest row."""

    def run(rows: list[list[int]]) -> Logits:
        import torch

        with torch.inference_mode():
            vectors: Logits = pooled(**original.tensors(rows)).numpy()
        return vectors

    return run


def source_vectors(folder: Path, location: str) -> Callable[[Sequence[str]], Vectors]:
    """Loads a source in fp32; returns what gives the unit vector of each text (row). Raises SourceRefused."""
    found = read_configuration(folder, location)
    original = load_original(folder, location, "AutoModel", "an encoder", UNUSED_HEADS)
    original = replace(original, window=min(found.window or original.window, original.window))
    run = runner(original, pooled_tokens(original.model, found.pooling))
    before = found.prompts.get(found.default_prompt, "") if found.default_prompt else ""

    def vectors(texts: Sequence[str]) -> Vectors:
        rows = run_all([original.encode(before + one) for one in texts], run, lambda share: None)
        return unit_length(rows.astype(np.float64))

    return vectors


def searched_texts(source: SourceFolder) -> Searched:
    """The checkpoint's own texts, else package descriptions with their synopses, and documents to be cut."""
    own = summarised_texts(source, SOFTWARE)
    if (source.path / OWN_TEXTS).exists():
        return Searched(own.name, [one.text for one in own.texts], own.answers, [])
    pairs, long = own.spread(PAIRS), read_texts(SUMMARIES).spread(LONG_TEXTS)
    return Searched(
        f"{own.name}, {long.name}", [one.text for one in pairs.texts], pairs.answers, [one.text for one in long.texts]
    )


@dataclass(frozen=True)
class Said:
    """A variant's vectors: of every text in batches of like lengths, of some texts alone, and of those among others.

    `places` are the texts that were run alone, and in batches of `unlike` lengths.
    """

    vectors: Logits
    places: tuple[int, ...]
    alone: Logits
    unlike: Logits


def said_of(rows: list[list[int]], run: RunRows, advance: Advance) -> Said:
    """Runs a variant on every row, and on some of them alone and in batches of unlike lengths."""
    vectors = run_all(rows, run, lambda share: advance(share * 0.7))
    count = min(ALONE, len(rows))
    places = tuple(at * len(rows) // count for at in range(count))
    alone = np.concatenate([run([rows[at]]) for at in places])
    advance(0.85)
    ordered = sorted(places, key=lambda at: len(rows[at]))
    batches = -(-count // BATCH)
    dealt = [ordered[start::batches] for start in range(batches)]  # each has short and long ones
    unlike = {at: vector for of in dealt for at, vector in zip(of, run([rows[at] for at in of]), strict=True)}
    advance(1.0)
    return Said(vectors, places, alone, np.stack([unlike[at] for at in places]))


def floors_of(precision: Precision, floor: float | None, drop: float) -> VectorFloors:
    """The floors: `floor` if given replaces that of equal neighbours, else the precision's own."""
    usual = replace(FLOORS[precision], drop=drop)
    return usual if floor is None else replace(usual, neighbours=floor)


def compare_vectors(
    source: Logits, said: Said, texts: Searched, floors: VectorFloors
) -> Comparison[EmbeddingVerification]:
    """Compares a variant's vectors with the source's: text by text, and by what a search finds with them."""
    meant, variant, places = _unit(source), _unit(said.vectors), list(said.places)
    unlike = _unit(said.unlike)
    cosines = np.concatenate([(meant * variant).sum(axis=1), (meant[places] * unlike).sum(axis=1)])
    moved = 1 - (_unit(said.alone) * unlike).sum(axis=1)
    by_source, by_variant = _found(meant, texts), _found(variant, texts)
    near, nearby = by_source.argmax(axis=1), by_variant.argmax(axis=1)
    asked = np.arange(len(near))
    same = by_source[asked, near] - by_source[asked, nearby] <= NEAR
    paired = texts.queries is not None
    verification = EmbeddingVerification(
        texts=len(texts.every),
        data_set=texts.name,
        mean_cosine=_within(cosines.mean()),
        least_cosine=_within(cosines.min()),
        least_cosine_floor=floors.least_cosine,
        neighbours=float(same.mean()),
        neighbours_floor=floors.neighbours,
        reciprocal_rank=mean_reciprocal_rank(by_variant) if paired else None,
        source_reciprocal_rank=mean_reciprocal_rank(by_source) if paired else None,
        reciprocal_rank_drop_ceiling=floors.drop,
        moved=max(0.0, _within(moved.max())),
        moved_ceiling=floors.moved,
    )
    differences = [
        Difference(at, texts.texts[near[at]][:SHOWN_CHARACTERS], texts.texts[nearby[at]][:SHOWN_CHARACTERS])
        for at in np.flatnonzero(~same).tolist()
    ]
    finite = all(bool(np.isfinite(one).all()) for one in (said.vectors, said.alone, said.unlike))
    return Comparison(verification, _broken(verification, finite), tuple(differences[:WORST]))


def _found(unit: Vectors, texts: Searched) -> Vectors:
    """The cosine of each query (rows) with each text (columns); a text does not find itself."""
    of_texts = unit[: len(texts.texts)]
    if texts.queries is not None:
        with_queries: Vectors = unit[len(texts.texts) :][: len(texts.queries)] @ of_texts.T
        return with_queries
    among: Vectors = of_texts @ of_texts.T
    np.fill_diagonal(among, -2.0)
    return among


def mean_reciprocal_rank(cosines: Vectors) -> float:
    """The mean of 1 / rank of each row's own column, from 0 to 1; the rank counts what is nearer."""
    own = np.diag(cosines)[:, None]
    return float((1 / (1 + (cosines > own).sum(axis=1))).mean())


def _unit(vectors: Logits) -> Vectors:
    return unit_length(np.nan_to_num(vectors.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0))


def _within(cosine: Any) -> float:
    return float(np.clip(cosine, -1.0, 1.0))


def _broken(found: EmbeddingVerification, finite: bool) -> str | None:
    if not finite:
        return "some of its vectors are not numbers"
    if found.least_cosine < found.least_cosine_floor:
        return (
            f"the vector of one of {found.texts} texts has a cosine of {found.least_cosine:.4f} with the source's, "
            f"under the floor of {found.least_cosine_floor:.4f}"
        )
    if found.neighbours < found.neighbours_floor:
        return (
            f"{found.neighbours:.2%} of {found.texts} texts have the source's nearest neighbour, "
            f"under the floor of {found.neighbours_floor:.2%}"
        )
    if found.moved > found.moved_ceiling:
        return (
            f"a text's vector moves by {found.moved:.5f} (one less the cosine) among texts of other lengths, "
            f"over the ceiling of {found.moved_ceiling:.5f}"
        )
    if found.reciprocal_rank is not None and found.source_reciprocal_rank is not None:
        drop = found.source_reciprocal_rank - found.reciprocal_rank
        if drop > found.reciprocal_rank_drop_ceiling:
            return (
                f"its mean reciprocal rank is {found.reciprocal_rank:.3f} and the source's "
                f"{found.source_reciprocal_rank:.3f}, a drop over the ceiling of "
                f"{found.reciprocal_rank_drop_ceiling:.3f}"
            )
    return None


def _agreement(manifest: EmbedderManifest) -> Mapping[str, str]:
    found = manifest.verification
    return {
        "same neighbour": share_with_floor(found.neighbours, found.neighbours_floor, found.texts),
        "mean cosine": f"{found.mean_cosine:.4f}",
        "least cosine": f"{found.least_cosine:.4f} (floor {found.least_cosine_floor:.4f})",
        "moved in a batch": f"{found.moved:.5f} (ceiling {found.moved_ceiling:.5f})",
        "reciprocal rank": rouge(found.reciprocal_rank),
        "source reciprocal rank": rouge(found.source_reciprocal_rank),
    }


def _recognises(path: Path, config: Mapping[str, Any]) -> bool:
    """True for a checkpoint of sentence-transformers, or an encoder that was saved without a head."""
    if (path / MODULES_FILE).exists():
        return True
    heads = config.get("architectures")
    bare = isinstance(heads, list) and bool(heads) and all(str(head).endswith("Model") for head in heads)
    return bare and config.get("is_encoder_decoder") is not True


EMBEDDER: Kind[EmbedderManifest, OpenEmbedder] = Kind(
    name="embedder",
    described="an embedder",
    task=EMBED.name,
    engines=("onnx",),
    recognises=_recognises,
    make=make_embedder,
    profile=profiled_in_one_pass,
    agreement=_agreement,
    profiles=one_profile,
    golden=lambda manifest: manifest.self_test,
)

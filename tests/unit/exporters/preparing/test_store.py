"""Laws of the store of variants: reused while nothing changed, made anew once anything relevant did."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from by_hand import entry_of
from small_variants import write_variant

from deployments.engines.host import Host, read_host
from deployments.replica.prepared import known_variants, note_prepared
from exporters.errors import VariantRefused
from exporters.export import replace_manifest
from exporters.plan import Settings, VariantPlan
from exporters.preparing.prepare import plans_for, precisions_for
from exporters.preparing.store import State, Store
from exporters.sources.staging import staged
from gateway.catalogs.catalog import Catalog, CatalogEntry, EngineName
from gateway.model.manifest import Precision
from gateway.model.tier import Tier
from gateway.tasks import read_manifest

PLAN = VariantPlan("by-hand", "classify", "sum", "onnx", Precision.FP32)
VNNI = Host("new", 2, frozenset({"avx512_vnni"}))
PLAIN = Host("old", 2, frozenset({"avx2"}))


def entry(engine: EngineName, *precision: Precision) -> CatalogEntry:
    """A catalog entry with this engine and these preferences."""
    return entry_of(
        "by-hand", "classify", Tier.REALTIME, family="sum", source="./nowhere", engine=engine, precision=precision
    )


@pytest.mark.parametrize(
    ("engine", "preferred", "host", "tried"),
    [
        (EngineName.ONNX, (Precision.INT8, Precision.FP32), VNNI, (Precision.INT8, Precision.FP32)),
        (EngineName.ONNX, (Precision.FP32,), VNNI, (Precision.FP32,)),
        (EngineName.ONNX, (Precision.INT8, Precision.FP32), PLAIN, (Precision.FP32,)),
        (EngineName.ONNX, (Precision.INT8,), PLAIN, (Precision.FP32,)),
        (EngineName.TORCH, (Precision.INT8, Precision.FP32), VNNI, (Precision.FP32,)),
    ],
)
def test_int8_is_tried_only_where_the_processor_has_it(
    engine: EngineName, preferred: tuple[Precision, ...], host: Host, tried: tuple[Precision, ...]
) -> None:
    """Int8 is tried only on processors with int8 dot products; fp32 always remains."""
    assert precisions_for(entry(engine, *preferred), host) == tried


BF16 = Host("newer", 2, frozenset({"avx512_vnni", "avx512_bf16"}))
ALL = (Precision.INT8, Precision.FP32, Precision.BF16)
RACED = ("onnx-int8", "onnx-fp32", "openvino-bf16")


@pytest.mark.parametrize(
    ("engine", "allowed", "host", "openvino", "raced", "alone"),
    [
        (EngineName.AUTO, ALL, BF16, True, RACED, ("onnx-int8", "onnx-fp32")),
        (EngineName.AUTO, ALL, BF16, False, (), ("onnx-int8", "onnx-fp32")),
        (EngineName.AUTO, ALL, VNNI, True, (), ("onnx-int8", "onnx-fp32")),
        (EngineName.AUTO, ALL[:2], BF16, True, (), ("onnx-int8", "onnx-fp32")),
        (EngineName.AUTO, ALL[::2], BF16, True, RACED[::2], ("onnx-int8",)),
        (EngineName.ONNX, ALL, BF16, True, (), ("onnx-int8", "onnx-fp32")),
        (EngineName.OPENVINO, ALL, BF16, True, (), ("openvino-bf16",)),
        (EngineName.TORCH, ALL, BF16, True, (), ("torch-fp32",)),
    ],
)
def test_engines_are_raced_only_where_there_is_something_to_choose(
    engine: EngineName,
    allowed: tuple[Precision, ...],
    host: Host,
    openvino: bool,
    raced: tuple[str, ...],
    alone: tuple[str, ...],
) -> None:
    """Engines are raced if none is named, bf16 is allowed, its library is installed and the processor has it.

    ONNX Runtime alone comes after the race; in all other cases the plans are those of a release without a race.
    """
    plans = plans_for(entry(engine, *allowed), host, openvino)
    assert tuple(one.variant for one in plans[0].candidates) == raced
    assert tuple(plan.variant for plan in plans if not plan.candidates) == alone
    assert [plan.variant for plan in plans if plan.candidates] == ["auto"] * bool(raced)


def test_a_writer_is_never_raced() -> None:
    """Engines are raced for tasks that OpenVINO's engine serves only."""
    writer = entry(EngineName.AUTO, *ALL).model_copy(update={"task": "summarize"})
    assert not any(plan.candidates for plan in plans_for(writer, BF16, True))


def test_the_place_of_a_raced_variant_follows_its_candidates(tmp_path: Path) -> None:
    """A variant chosen among other candidates has another folder, and none that a single engine's variant has."""
    (most, *_), (fewer, *_) = (plans_for(entry(EngineName.AUTO, *some), BF16, True) for some in (ALL, ALL[::2]))
    store = Store(tmp_path)
    plans = (most, fewer, *(most.of(one) for one in most.candidates))
    assert len({store.folder(plan, "a") for plan in plans}) == 5


def test_a_variant_is_kept_under_what_it_was_made_from(tmp_path: Path) -> None:
    """Another source, precision, family or task gives another folder; a number of threads does not."""
    store = Store(tmp_path)
    plans = [
        PLAN,
        VariantPlan("by-hand", "classify", "sum", "onnx", Precision.INT8),
        VariantPlan("by-hand", "classify", "product", "onnx", Precision.FP32),
    ]
    folders = [store.folder(plan, sha256) for plan in plans for sha256 in ("a", "b")]
    assert len(set(folders)) == 6
    assert store.folder(VariantPlan("by-hand", "classify", "sum", "onnx", Precision.FP32, 2), "a") == folders[0]


def test_a_variant_judged_by_another_floor_has_a_place_of_its_own(tmp_path: Path) -> None:
    """A variant accepted by a lower floor has a folder of its own; the time to profile changes no folder."""
    store = Store(tmp_path)
    usual = store.folder(PLAN, "a")
    assert store.folder(PLAN, "a", Settings(profile_budget_s=1)) == usual
    assert len({usual, store.folder(PLAN, "a", Settings(floor=0.1)), store.folder(PLAN, "a", Settings(drop=0.5))}) == 3


def test_the_state_of_a_folder_is_seen_from_a_host(tmp_path: Path) -> None:
    """A variant is ready if it is whole and was profiled on this kind of host and threads; a damaged one is absent."""
    folder = tmp_path / "variant"
    manifest = write_variant(folder)
    store, host = Store(tmp_path), read_host()
    assert store.state(folder, host, 1) is State.PROFILED_ELSEWHERE
    here = manifest.profile.model_copy(update={"measured_on": host.kind})
    replace_manifest(folder, manifest.model_copy(update={"profile": here}))
    assert store.state(folder, host, 1) is State.READY
    assert store.state(folder, host, 2) is State.PROFILED_ELSEWHERE
    (folder / "model.onnx").write_bytes(b"damaged")
    assert store.state(folder, host, 1) is State.ABSENT
    assert store.state(tmp_path / "nowhere", host, 1) is State.ABSENT


def test_a_variant_for_another_processor_is_absent(tmp_path: Path) -> None:
    """A variant made with instructions that this host lacks counts as absent."""
    write_variant(tmp_path / "variant", cpu_features=("avx512_vnni",))
    assert Store(tmp_path).state(tmp_path / "variant", PLAIN, 1) is State.ABSENT


def test_a_refusal_is_remembered(tmp_path: Path) -> None:
    """A refused variant is remembered, so that the next start need not make it again."""
    store = Store(tmp_path)
    folder = store.folder(PLAN, "a")
    store.refuse(folder, VariantRefused("by-hand", "onnx-int8", "it is bad", ()))
    assert store.state(folder, VNNI, 1) is State.REFUSED
    known = store.refusal(folder)
    assert known is not None
    assert known.reason == "it is bad"


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"[1]", b'{"checkpoint": '])
def test_a_damaged_note_is_as_good_as_none(damage: bytes, tmp_path: Path) -> None:
    """A note that cannot be read, as after a power cut, is written anew and ends no start."""
    store, folder = Store(tmp_path / "cache"), tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text("{}")
    sha256 = store.source_sha256(str(folder), None)
    variant = store.folder(PLAN, sha256)
    store.refuse(variant, VariantRefused("by-hand", "onnx-int8", "it is bad", ()))
    note_prepared(store.root, entry(EngineName.ONNX, Precision.FP32), variant)
    for note in [path for path in store.root.rglob("*") if path.is_file()]:
        note.write_bytes(damage)
    assert not store.knows(str(folder), None)
    assert store.source_sha256(str(folder), None) == sha256
    assert store.knows(str(folder), None)
    assert store.state(variant, VNNI, 1) is State.ABSENT
    catalog = Catalog(name="one", checkpoints=(entry(EngineName.ONNX, Precision.FP32),))
    assert known_variants(catalog, store.root) == ({}, ["by-hand"])


def test_the_digest_of_a_source_is_read_once_and_follows_its_files(tmp_path: Path) -> None:
    """The digest of a source is computed once, and again when a file's time or size changes."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    weights = folder / "model.safetensors"
    weights.write_bytes(b"weights")
    store = Store(tmp_path / "cache")
    first = store.source_sha256(str(folder), None)
    before = weights.stat()
    weights.write_bytes(b"weightz")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.source_sha256(str(folder), None) == first  # not read again, since size and time are equal
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert store.source_sha256(str(folder), None) != first


def test_a_staged_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """A failure leaves the target unchanged, and the next export removes what a killed one left."""
    target = tmp_path / "variant"
    (tmp_path / ".variant.partial-killed").mkdir()
    with staged(target) as folder:
        (folder / "file").write_text("first")
        assert not target.exists()
    with pytest.raises(FileNotFoundError), staged(target) as folder:
        (folder / "nowhere" / "file").write_text("broken")
    assert (target / "file").read_text() == "first"
    with staged(target) as folder:
        (folder / "file").write_text("second")
    assert (target / "file").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["variant"]


def test_a_replaced_manifest_keeps_the_rest(tmp_path: Path) -> None:
    """Replacing a manifest changes no other file."""
    manifest = write_variant(tmp_path / "variant").model_copy(update={"family": "other"})
    replace_manifest(tmp_path / "variant", manifest)
    assert read_manifest(tmp_path / "variant").family == "other"
    assert sorted(path.name for path in (tmp_path / "variant").iterdir()) == sorted([*manifest.files, "manifest.json"])

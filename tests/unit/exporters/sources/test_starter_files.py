"""Laws of starter checkpoints: found in a checkout or where PUNCTUAL_STARTER says, and only if as published."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from exporters.errors import SourceAbsent, SourceRefused
from exporters.preparing.store import Store
from exporters.sources.source import digest_of, resolve_source, source_folder
from exporters.sources.starter_files import HERE, VARIABLE, published, starter_folder, starter_root

CHECKOUT = HERE / "checkpoints"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that PUNCTUAL_STARTER names, with one checkpoint and its encoder."""
    root = tmp_path / "starters"
    for name in ("extract-realtime", "distilbert-sentiment"):
        shutil.copytree(CHECKOUT / name, root / name)
    monkeypatch.setenv(VARIABLE, str(root))
    return root


def test_the_published_digests_are_those_of_the_checkout() -> None:
    """The published digests cover every file of every checkpoint in the checkout, except read-mes."""
    found = {
        folder.name: {
            file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in folder.rglob("*")
            if file.is_file() and file.name != "README.md"
        }
        for folder in CHECKOUT.iterdir()
    }
    assert published() == found


def test_a_checkout_s_checkpoints_are_found_beside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout's starter checkpoints are found without any setting, complete and as published."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert starter_root() == CHECKOUT
    for name in published():
        assert source_folder(f"starter:{name}") == CHECKOUT / name
        assert len(digest_of(CHECKOUT / name)) == 64


def test_a_starter_is_found_where_the_environment_says(elsewhere: Path) -> None:
    """PUNCTUAL_STARTER gives the folder of a starter checkpoint and of its encoder."""
    source = resolve_source("starter:extract-realtime")
    assert (source.path, source.encoder) == (elsewhere / "extract-realtime", elsewhere / "distilbert-sentiment")


@pytest.mark.parametrize("name", ["other", "../starters/extract-realtime", "", "."])
def test_a_starter_is_found_by_a_published_name_alone(elsewhere: Path, name: str) -> None:
    """A name that is not published, such as a path out of the folder, is refused with the list of names."""
    with pytest.raises(SourceRefused, match="no such starter checkpoint; there are all-minilm-l6, all-mpnet-base, "):
        starter_folder(f"starter:{name}")


def test_weights_that_are_not_here_are_told_with_how_to_get_them(elsewhere: Path) -> None:
    """Missing weights give a one-line message: what is missing where, and what to clone and set."""
    with pytest.raises(SourceAbsent) as caught:
        resolve_source("starter:bart-software")
    said = str(caught.value)
    assert said.startswith(f"starter:bart-software: its weights are not in {elsewhere}")
    assert f"set {VARIABLE} to its folder exporters/starter/checkpoints" in said and "\n" not in said


@pytest.mark.parametrize("folder", ["extract-realtime", "distilbert-sentiment"])
def test_a_file_that_is_not_the_published_one_is_refused(elsewhere: Path, folder: str) -> None:
    """A changed, missing or added file, also of the encoder, is refused by its name."""
    file = elsewhere / folder / "manifest.json"
    file.write_bytes(b"{}")
    with pytest.raises(SourceRefused, match=f"{folder}/manifest.json is not the published file: expected sha256"):
        resolve_source("starter:extract-realtime")
    file.unlink()
    with pytest.raises(SourceRefused, match=r"manifest.json is not the published file: .*, got none"):
        resolve_source("starter:extract-realtime")
    shutil.copyfile(CHECKOUT / folder / "manifest.json", file)
    (elsewhere / folder / "merges.txt").write_text("a b")
    with pytest.raises(SourceRefused, match=r"merges.txt is not the published file: expected sha256 none"):
        resolve_source("starter:extract-realtime")


def test_a_source_that_is_gone_keeps_its_digest(elsewhere: Path, tmp_path: Path) -> None:
    """A deleted source keeps its noted digest, so its variants can still be served; an unseen source is an error."""
    store = Store(tmp_path / "cache")
    known = store.source_sha256("starter:extract-realtime", None)
    shutil.rmtree(elsewhere)
    assert store.source_sha256("starter:extract-realtime", None) == known
    with pytest.raises(SourceAbsent):
        store.source_sha256("starter:extract-quality", None)

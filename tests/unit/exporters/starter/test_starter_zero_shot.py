"""Laws of the fit of labels' scores: what it finds where the answer is known, and which texts it takes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from deployments.replica.variant import file_sha256
from exporters.sources.registry import Package
from exporters.starter.zero_shot import material
from exporters.starter.zero_shot.fit import Cosines, accuracy, loss, off, sigmoid_of, temperature_of
from exporters.starter.zero_shot.material import SECTIONS, beginning, intents, sections

TEXTS, LABELS = 4000, 5


def drawn(temperature: float) -> tuple[Cosines, list[int]]:
    """Cosines by chance, and labels drawn as a softmax at that temperature says."""
    chance = np.random.default_rng(5)
    cosines = chance.uniform(-0.1, 0.4, size=(TEXTS, LABELS))
    shares = np.exp(cosines / temperature)
    shares /= shares.sum(axis=1, keepdims=True)
    return cosines, [int(chance.choice(LABELS, p=row)) for row in shares]


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_a_temperature_is_found_again(temperature: float) -> None:
    """Where labels were drawn at a temperature, the fit finds it, and there scores are as often right as they say."""
    cosines, right = drawn(temperature)
    found = temperature_of([cosines], right)
    assert found == pytest.approx(temperature, rel=0.1)
    assert loss(cosines, right, found) <= min(loss(cosines, right, found * 2), loss(cosines, right, found / 2))
    assert off(cosines, right, found) < 0.03 < off(cosines, right, found / 4)


def test_the_nearest_label_is_the_answer() -> None:
    """Accuracy is the share of texts whose nearest label is theirs."""
    assert accuracy(np.asarray([[0.9, 0.1], [0.2, 0.3], [0.5, 0.4]]), [0, 1, 1]) == pytest.approx(2 / 3)


def test_right_and_wrong_labels_weigh_the_same_in_the_sigmoid() -> None:
    """However many wrong labels there are, one as far from the right as from the wrong scores a half."""
    chance, right = np.random.default_rng(5), [0] * TEXTS
    near, far = chance.normal(0.5, 0.1, size=(TEXTS, 1)), chance.normal(0.1, 0.1, size=(TEXTS, 7))
    found = sigmoid_of([np.concatenate([near, far], axis=1)], right)
    assert found.middle == pytest.approx(0.3, abs=0.01) and found.slope == pytest.approx(0.4 / 0.1**2, rel=0.1)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One. Two! Three.", "One. Two!"),
        ("One alone", "One alone"),
        ("Version 1.2 is out. So? Yes.", "Version 1.2 is out. So?"),
    ],
)
def test_a_text_is_taken_by_its_first_two_sentences(text: str, first: str) -> None:
    """The beginning of a text ends with its second sentence, where it has more."""
    assert beginning(text) == first


def test_packages_are_taken_by_section_one_of_a_source(tmp_path: Path) -> None:
    """Each topic has as many texts as asked for, of packages of its section, and no source has two."""
    stanzas: list[str] = []
    described: list[str] = []
    long = "It is described at such length that nobody could call it short, " + "and then at more length still, " * 3
    for section in (*SECTIONS, "libs"):
        for at in range(4):
            name = f"{section}{at}"
            stanzas.append(f"Package: {name}\nSource: {section}{at // 2}\nSection: {section}\n")
            described.append(f"Package: {name}\nDescription-en: a {name} of sorts\n Number {at} in {section}. {long}\n")
    (tmp_path / "deb_dists_made_Packages").write_text("\n".join(stanzas))
    (tmp_path / "deb_dists_made_Translation-en").write_text("\n".join(described))
    found = sections(tmp_path, of_each=2)
    assert len(found.texts) == 2 * len(SECTIONS) and len(set(found.texts)) == len(found.texts)
    assert found.labels == list(SECTIONS.values())
    assert all(f" in {list(SECTIONS)[at]}." in text for text, at in zip(found.texts, found.right, strict=True))


def test_intents_are_read_from_the_package_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Utterances come without their heading, and the names of intents as words."""
    examples = [{"input": "Utterance: Play it.", "target_scores": {"play_music": 1, "get_weather": 0}}]
    content = json.dumps({"examples": examples}).encode()
    with tarfile.open(tmp_path / "made.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo(f"made-1.0/{material.TASK}")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    package = Package("made", "1.0", "made.tar.gz", file_sha256(tmp_path / "made.tar.gz"), "none", binary=False)
    monkeypatch.setattr(material, "BIGBENCH", package)
    found = intents(tmp_path)
    assert (found.texts, found.labels, found.right) == (["Play it."], ["get weather", "play music"], [1])

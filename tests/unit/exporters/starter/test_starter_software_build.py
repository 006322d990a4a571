"""The summarizer's build on a tiny random base: no network, a few steps, every file."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_checkpoints import wordpiece
from tokenizers import Tokenizer
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, BertModel

from exporters.starter.data import Split
from exporters.starter.publishing import read_manifest
from exporters.starter.software.build import build_from
from exporters.starter.software.card import SummariserManifest
from exporters.starter.software.decoding import FIXED, GREEDY, chosen, load, summaries
from exporters.starter.software.descriptions import Pair
from exporters.starter.software.fit import (
    IGNORED,
    Recipe,
    Row,
    loss,
    optimizer_for,
    padded,
    plan,
    progress,
    rows_of,
    slope,
    step,
)
from exporters.starter.software.material import Material, choose
from exporters.starter.software.model import bart_from
from exporters.starter.training import PAD_ID
from exporters.starter.vocabulary import SPECIAL, full_tokenizer, pruned_tokenizer

pytestmark = pytest.mark.export

PAIRS = [
    Pair(
        "a", "a", "The food was great and the service very warm. I loved it, and the film was fine too.", "great food"
    ),
    Pair("b", "b", "The film was awful, the plot slow, and I hated the acting.", "awful film"),
    Pair("c", "c", "The plot was fine! The acting was good, very good, and fast.", "fine plot and good acting"),
]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A base checkpoint of six random layers, 24 wide, and three pairs on each side."""
    torch.set_num_threads(1)  # such small matrices only wait for each other on more threads
    base = tmp_path_factory.mktemp("base")
    tokenizer = wordpiece()
    tokenizer.save(str(base / "tokenizer.json"))
    shipped = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))
    shipped["added_tokens"] = []
    torch.manual_seed(0)
    config = BertConfig(tokenizer.get_vocab_size(), 24, 6, 4, 48, max_position_embeddings=512)
    config.save_pretrained(base)
    save_file(BertModel(config).state_dict(), base / "model.safetensors")
    texts = [text for pair in PAIRS for text in (pair.text, pair.summary)]
    kept = choose(shipped["model"]["vocab"], full_tokenizer(base), texts, tokenizer.get_vocab_size() - 4)
    return Material({side: PAIRS for side in Split}, ("bookworm",), base, kept, pruned_tokenizer(shipped, kept))


@pytest.fixture(scope="module")
def rows(material: Material) -> list[Row]:
    """The three pairs as token rows."""
    return rows_of(Tokenizer.from_str(json.dumps(material.tokenizer)), PAIRS, 64, 16)


@pytest.fixture(scope="module")
def built(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SummariserManifest]:
    """One smoke build's folder and manifest."""
    out = tmp_path_factory.mktemp("out")
    return out, build_from(material, out, lambda done, steps, line: None, smoke=True)


def test_pruning_keeps_what_the_texts_use_most(material: Material) -> None:
    """Pruning keeps every single character and the pieces that texts use most; unused words go first."""
    base = json.loads((material.base / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = base["model"]["vocab"]
    kept = set(material.vocabulary.tokens)
    assert kept >= {piece for piece in vocabulary if len(piece.removeprefix("##")) == 1} | set(SPECIAL.values())
    assert "great" in kept and "film" in kept and len(kept) == len(vocabulary) - 4
    encoding = Tokenizer.from_str(json.dumps(material.tokenizer)).encode("a hated zebra's film")
    assert "[UNK]" not in encoding.tokens
    with pytest.raises(ValueError, match="must stay"):
        choose(vocabulary, full_tokenizer(material.base), [], 10)


def test_the_encoder_begins_as_the_bert_it_is_made_of(material: Material) -> None:
    """Before training, the BART's encoder computes what the BERT computes, apart from padding."""
    bert = BertModel(BertConfig.from_pretrained(material.base), add_pooling_layer=False).eval()
    weights = load_file(material.base / "model.safetensors")
    bert.load_state_dict({name: t for name, t in weights.items() if not name.startswith("pooler")})
    bart = bart_from(material.base, material.vocabulary, seed=1).eval()
    new = torch.tensor([[2, 5, 9, 11, 7, 3], [2, 8, 6, 3, 0, 0]])
    old = torch.tensor([[material.vocabulary.base_ids[i] for i in row] for row in new.tolist()])
    mask = (new != PAD_ID).long()
    with torch.inference_mode():
        theirs = bert(old, attention_mask=mask).last_hidden_state
        ours = bart.get_encoder()(new, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(ours[mask.bool()], theirs[mask.bool()], atol=1e-3, rtol=0)


def test_the_decoder_begins_as_layers_of_the_bert(material: Material) -> None:
    """Before training, the decoder's attention is that of the named BERT layers, and it shares the encoder's words."""
    weights = load_file(material.base / "model.safetensors")
    query = weights["encoder.layer.4.attention.self.query.weight"]
    made = bart_from(material.base, material.vocabulary, seed=1)
    last = made.model.decoder.layers[2]
    assert torch.equal(last.self_attn.q_proj.weight, query) and torch.equal(last.encoder_attn.q_proj.weight, query)
    assert made.lm_head.weight is made.model.shared.weight


def test_batches_hold_every_row_once_under_the_budget() -> None:
    """Batches hold every row exactly once; only a batch of one row may exceed the budget."""
    chance = random.Random(5)
    lengths = [chance.randint(3, 90) for _ in range(400)]
    rows = [Row([1] * length, [1, 2]) for length in lengths]
    batches = plan(rows, 80, random.Random(1))
    assert sorted(at for batch in batches for at in batch) == list(range(400))
    assert all(len(b) == 1 or len(b) * max(lengths[at] for at in b) <= 80 for b in batches)
    assert plan(rows, 80, random.Random(1)) == batches != plan(rows, 80, random.Random(2))


def test_a_decoder_is_asked_for_the_piece_after_each(rows: list[Row]) -> None:
    """A decoder's labels are its input shifted by one, ended by [SEP]; padding is masked and ignored."""
    batch = padded(rows)
    assert torch.equal(batch.attention_mask.bool(), batch.input_ids != PAD_ID)
    for row, said, wanted in zip(rows, batch.decoder_input_ids.tolist(), batch.labels.tolist(), strict=True):
        length = len(row.summary) - 1
        assert said[:length] == row.summary[:-1] and wanted[:length] == row.summary[1:]
        assert set(wanted[length:]) <= {IGNORED} and row.summary[-1] == 3


def test_a_step_learns(material: Material, rows: list[Row]) -> None:
    """A few training steps on three pairs lower the loss; encoder and decoder have their own learning rates."""
    model = bart_from(material.base, material.vocabulary, seed=1).train()
    recipe, batch = Recipe(learning_rate=2e-2, encoder_learning_rate=5e-3, label_smoothing=0.0), padded(rows)
    optimizer = optimizer_for(model, recipe)
    assert [group["lr"] for group in optimizer.param_groups] == [2e-2, 2e-2, 5e-3, 5e-3]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    first = loss(model, batch, 0.0).item()
    for _ in range(15):
        step(model, batch, recipe, optimizer)
    assert loss(model, batch, 0.0).item() < 0.8 * first


def test_rates_end_with_the_steps_or_with_the_time() -> None:
    """Learning rates rise, then fall to zero at the end of the steps or of the time, whichever comes first."""
    recipe = Recipe(limit_s=100.0)
    assert progress(5, 10, 20.0, recipe) == 0.5 and progress(1, 10, 70.0, recipe) == 0.7
    assert progress(10, 10, 1.0, recipe) == 1 == progress(1, 10, 101.0, recipe)
    rates = [slope(at / 100, 0.1) for at in range(101)]
    assert max(rates) == rates[10] and rates[-1] == 0 and 0 < rates[0] < rates[5] < rates[10] > rates[50]


def test_the_settings_that_serve_dev_best_are_chosen() -> None:
    """The length penalty is chosen first, then the minimum length; the first setting wins a tie."""
    best = chosen(lambda s: -abs(s["length_penalty"] - 1.4) + (s["min_length"] == 8))
    assert best == {**FIXED, "length_penalty": 1.5, "min_length": 8}
    assert chosen(lambda s: 0.0)["length_penalty"] == 0.5


def test_a_build_leaves_a_complete_checkpoint(built: tuple[Path, SummariserManifest]) -> None:
    """A build leaves a complete checkpoint whose manifest names every file, and no working folder."""
    out, manifest = built
    folder = out / "checkpoints" / "bart-software"
    assert read_manifest(folder, SummariserManifest) == manifest and not (out / "work").exists()
    assert manifest.files == {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != "manifest.json"
    }
    assert manifest.data.heldout_sha256 == hashlib.sha256((out / "software-heldout.jsonl").read_bytes()).hexdigest()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlicense: apache-2.0\n")
    for score in (manifest.heldout.beam, manifest.heldout.greedy, manifest.heldout.first_sentence, manifest.dev.beam):
        assert f"{score.rougeL[0]:.1f} (" in card


def test_a_checkpoint_loads_as_any_other(built: tuple[Path, SummariserManifest]) -> None:
    """The stock auto classes load the checkpoint completely and decode with its settings."""
    folder = built[0] / "checkpoints" / "bart-software"
    model, report = AutoModelForSeq2SeqLM.from_pretrained(folder, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    row = tokenizer("The film was Good", return_tensors="pt")
    assert "token_type_ids" not in row
    answer = model.generate(**row)[0].tolist()
    assert answer[0] == model.config.decoder_start_token_id and answer[-1] == model.config.eos_token_id
    settings = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    assert settings["num_beams"] == 4 and built[1].generation["length_penalty"] == settings["length_penalty"]


def test_order_and_company_change_no_summary(built: tuple[Path, SummariserManifest]) -> None:
    """Summaries come back in the order of the texts, and equal those of each text alone."""
    model, tokenizer = load(built[0] / "checkpoints" / "bart-software")
    texts = [pair.text for pair in PAIRS]
    together = summaries(model, tokenizer, texts, 64, **GREEDY)
    assert together == [summaries(model, tokenizer, [text], 64, **GREEDY)[0] for text in texts]

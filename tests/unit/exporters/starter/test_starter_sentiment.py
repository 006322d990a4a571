"""The starter build on a tiny random base: no network, a few steps, every file."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from exporters.sources.texts import Sentence
from exporters.starter.data import LABELS, Split
from exporters.starter.sentiment.build import build_from, wilson
from exporters.starter.sentiment.card import Manifest
from exporters.starter.sentiment.lessons import LAYERS, student_from, teacher_from
from exporters.starter.sentiment.material import Material
from exporters.starter.vocabulary import prune, pruned_tokenizer

pytestmark = pytest.mark.export

WORDS = ["a", "bad", "dull", "fine", "film", "good", "grand", "is", "plot", "the", "was", "##ly", "##ing"]
PLACEHOLDERS = ["[unused0]", "[unused1]"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = {"positive": ("the film was good", "a grand plot"), "negative": ("the plot is dull", "a bad film")}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """A base checkpoint of six random layers, 24 wide, and four sentences on each side."""
    base = tmp_path_factory.mktemp("base")
    letters = "abdefgilnoprstuwy"
    tokens = [*PLACEHOLDERS, *SPECIALS, *dict.fromkeys([*WORDS, *letters, *(f"##{c}" for c in letters)])]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(lowercase=True), BertPreTokenizer()
    tokenizer.add_special_tokens(SPECIALS)
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    torch.manual_seed(0)
    config = BertConfig(len(tokens), 24, 6, 12, 48, max_position_embeddings=512)
    config.save_pretrained(base)
    save_file(BertModel(config).state_dict(), base / "model.safetensors")
    kept = prune(vocabulary, WORDS, size=len(tokens) - len(PLACEHOLDERS))
    rated = [
        Sentence(t, label, 2.0 if label == "positive" else -2.0, "tweets") for label in LABELS for t in TEXTS[label]
    ]
    sides = {split: rated for split in Split}
    return Material(sides, [], [], base, kept, pruned_tokenizer(json.loads(tokenizer.to_str()), kept))


@pytest.fixture(scope="module")
def built(material: Material, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Manifest]]:
    """One smoke build's folder and manifests."""
    out = tmp_path_factory.mktemp("out")
    return out, build_from(material, out, lambda name: lambda done, steps, line: None, smoke=True)


def test_a_build_leaves_two_complete_checkpoints(built: tuple[Path, list[Manifest]]) -> None:
    """A build leaves two complete checkpoints, whose manifests name every file, and no training state."""
    out, manifests = built
    assert [m.tier for m in manifests] == ["balanced", "realtime"]
    for m in manifests:
        folder = out / "checkpoints" / m.name
        assert m.files == {
            p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if p.name != "manifest.json"
        }
    assert not (out / "work").exists()


def test_a_build_can_be_repeated_to_the_byte(
    built: tuple[Path, list[Manifest]], material: Material, tmp_path: Path
) -> None:
    """Equal material and seeds give equal weights to the byte."""
    again = build_from(material, tmp_path, lambda name: lambda done, steps, line: None, smoke=True)
    assert [m.files["model.safetensors"] for m in again] == [m.files["model.safetensors"] for m in built[1]]


def test_a_checkpoint_loads_as_any_other(built: tuple[Path, list[Manifest]]) -> None:
    """The stock auto classes load each folder, in fp32, and answer with the two labels."""
    out, manifests = built
    for m in manifests:
        folder = out / "checkpoints" / m.name
        model, tokenizer = (
            AutoModelForSequenceClassification.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
        )
        row = tokenizer("The film was Good", return_tensors="pt")
        assert model(**row).logits.shape == (1, 2) and model.dtype is torch.float32
        assert model.config.id2label == dict(enumerate(LABELS)) and tokenizer.model_max_length == 512
        assert tokenizer.convert_ids_to_tokens(row["input_ids"][0])[1:-1] == ["the", "film", "was", "good"]


def test_a_student_starts_as_its_teacher_with_layers_left_out(material: Material) -> None:
    """Before training, the student computes exactly the teacher's embeddings and its layers 0, 2 and 4."""
    teacher = teacher_from(material.base, material.vocabulary).eval()
    student = student_from(teacher).eval()
    ids = torch.tensor([[2, 7, 8, 9, 3]])
    with torch.inference_mode():
        state = teacher.bert.embeddings(ids)
        for layer in LAYERS:
            state = teacher.bert.encoder.layer[layer](state)[0]
        torch.testing.assert_close(student.distilbert(ids).last_hidden_state, state)


def test_pruning_never_drops_what_must_stay() -> None:
    """Pruning keeps single characters, their continuations and used pieces; a size too small for them is refused."""
    base = {t: i for i, t in enumerate(["[unused0]", *SPECIALS, "the", "film", "rare", "a", "##a", "used"])}
    kept = prune(base, {"used"}, size=9)
    assert kept.tokens == (*SPECIALS, "the", "a", "##a", "used")
    assert [list(base)[i] for i in kept.base_ids] == list(kept.tokens)
    with pytest.raises(ValueError, match="must stay"):
        prune(base, {"used"}, size=7)


def test_an_interval_narrows_with_more_sentences() -> None:
    """An interval narrows with more sentences, and always contains the measured share."""
    few, many = wilson(9, 10), wilson(900, 1000)
    assert few[0] < many[0] < 0.9 < many[1] < few[1]

"""Laws of the adapter's recipe, on a tiny random MPNet: no network, a few steps, every file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_adapters import sha256
from small_mpnet import LAYERS, make_base, material_of
from transformers import AutoModelForSequenceClassification, MPNetForSequenceClassification

from exporters.sources.adapters import ADAPTER_WEIGHTS, Base, is_adapter, merge, read_base
from exporters.sources.registry import Package
from exporters.starter.adapter.build import NAME, build_from
from exporters.starter.adapter.card import AdapterManifest
from exporters.starter.adapter.fit import Recipe, fit, model_from
from exporters.starter.adapter.low_rank import adapt, adapted_names, load_trained, trained_parameters, trained_tensors
from exporters.starter.adapter.material import Material
from exporters.starter.command import Tick
from exporters.starter.data import LABELS, Split

pytestmark = pytest.mark.export

RECIPE = Recipe(epochs=3, batch_size=2, rank=2, alpha=4, first_layer=2)
IDS = torch.tensor([[0, 6, 9, 10, 2, 1, 1], [0, 7, 8, 9, 10, 11, 2]])
MASK = (IDS != 1).long()


def quiet(name: str) -> Tick:
    """A progress bar that nobody sees."""
    return lambda done, steps, line: None


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """The tiny base and its sentences."""
    return material_of(make_base(tmp_path_factory.mktemp("base")))


@pytest.fixture(scope="module")
def base(material: Material) -> Base:
    """The tiny base, pinned."""
    digests = {f"tiny/{file.name}": sha256(file.read_bytes()) for file in material.base.iterdir()}
    size = sum(file.stat().st_size for file in material.base.iterdir())
    package = Package("tiny", "0.0.1", "tiny-0.0.1-py3-none-any.whl", "0" * 64, "Apache-2.0", binary=True)
    return Base((package,), "*/input/*", digests, size)


@pytest.fixture(scope="module")
def built(material: Material, base: Base, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, AdapterManifest]:
    """A build's folder and manifest."""
    out = tmp_path_factory.mktemp("out")
    return out, build_from(material, base, RECIPE, out, quiet)


@torch.inference_mode()
def logits_of(model: torch.nn.Module) -> torch.Tensor:
    """What a model answers to two rows, the shorter one padded."""
    logits: torch.Tensor = model.eval()(input_ids=IDS, attention_mask=MASK).logits
    return logits


def test_a_fresh_adapter_changes_nothing(material: Material) -> None:
    """Before training, an adapted model answers exactly as its base with the same head."""
    adapted = model_from(material.base, RECIPE)
    plain = MPNetForSequenceClassification.from_pretrained(material.base)
    plain.classifier.load_state_dict(adapted.classifier.state_dict())
    torch.testing.assert_close(logits_of(adapted), logits_of(plain), rtol=0, atol=0)


def test_a_merged_checkpoint_answers_as_its_adapter(built: tuple[Path, AdapterManifest], tmp_path: Path) -> None:
    """The merged checkpoint, loaded as any other, gives the logits of base and adapter side by side."""
    out, _ = built
    folder = out / "checkpoints" / NAME
    made = material_of(make_base(tmp_path / "base"))
    adapted = model_from(made.base, RECIPE)
    before = logits_of(adapted)
    load_trained(adapted, {name: half.float() for name, half in load_file(folder / ADAPTER_WEIGHTS).items()})
    (tmp_path / "merged").mkdir()
    merge(folder, made.base, tmp_path / "merged", NAME)
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(merged), logits_of(adapted), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(logits_of(merged), before, atol=1e-3), "the adapter changed something"
    assert merged.config.id2label == dict(enumerate(LABELS)) and merged.dtype is torch.float32


def test_only_adapters_and_head_are_trained(material: Material) -> None:
    """A fit leaves the base as it was, moves every adapter and the head, and nothing is below the first layer."""
    model, rows = model_from(material.base, RECIPE), material.rows(Split.TRAIN, 16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trained = set(trained_parameters(model))
    assert len(trained) == 2 * len(adapted_names("mpnet", range(RECIPE.first_layer, LAYERS))) + 4
    assert not any(".layer.0." in name or ".layer.1." in name for name in trained)
    found = fit(model, rows, rows, RECIPE, material.base.parent / "only.pt", quiet(""))
    for name, tensor in model.state_dict().items():
        is_trained = name.startswith("classifier.") or name.endswith((".down", ".up"))
        assert torch.equal(tensor.float(), before[name].to(tensor.dtype).float()) is not is_trained, name
    assert set(found.tensors) == trained and len(found.dev_accuracy_by_epoch) == RECIPE.epochs


def test_an_interrupted_fit_ends_as_one_in_a_piece(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that was killed and started again gives the tensors of an uninterrupted one, to the bit."""
    monkeypatch.setattr("exporters.starter.adapter.fit.SAVE_EVERY", 1)
    rows = material.rows(Split.TRAIN, 16)

    def killed(done: int, steps: int, line: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = fit(model_from(material.base, RECIPE), rows, rows, RECIPE, tmp_path / "whole.pt", quiet(""))
    with pytest.raises(KeyboardInterrupt):
        fit(model_from(material.base, RECIPE), rows, rows, RECIPE, tmp_path / "state.pt", killed)
    seen: list[int] = []
    resumed = fit(
        model_from(material.base, RECIPE),
        rows,
        rows,
        RECIPE,
        tmp_path / "state.pt",
        lambda done, steps, line: seen.append(done),
    )
    assert seen == [4, 5, 6]
    assert whole.dev_accuracy_by_epoch == resumed.dev_accuracy_by_epoch
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name


def test_another_recipe_never_resumes(material: Material, tmp_path: Path) -> None:
    """A saved state of another recipe is not continued."""
    rows, other = material.rows(Split.TRAIN, 16), replace(RECIPE, max_steps=2)
    fit(model_from(material.base, other), rows, rows, other, tmp_path / "state.pt", quiet(""))
    seen: list[int] = []
    tick: Tick = lambda done, steps, line: seen.append(done)  # noqa: E731
    fit(model_from(material.base, RECIPE), rows, rows, RECIPE, tmp_path / "state.pt", tick)
    assert seen[0] == 1


def test_only_linear_layers_are_adapted(material: Material) -> None:
    """A name that is not a linear layer's is refused."""
    with pytest.raises(ValueError, match=r"mpnet\.embeddings is not a linear layer"):
        adapt(MPNetForSequenceClassification.from_pretrained(material.base), ["mpnet.embeddings"], 2, 4)


def test_a_build_leaves_a_complete_adapter(built: tuple[Path, AdapterManifest], base: Base) -> None:
    """A build leaves one adapter whose manifest names every file, in fp16, and no training state."""
    out, manifest = built
    folder = out / "checkpoints" / NAME
    assert manifest.files == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "manifest.json"
    }
    assert is_adapter(folder) and read_base(folder, NAME) == base and not (out / "work").exists()
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    assert manifest.trained_parameters == sum(tensor.numel() for tensor in tensors.values())
    settings = json.loads((folder / "adapter_config.json").read_bytes())
    assert (settings["peft_type"], settings["r"], settings["layers_to_transform"]) == ("LORA", 2, [2, 3])


def test_trained_tensors_go_back_where_they_came_from(material: Material) -> None:
    """Tensors that were taken from one adapted model and loaded into another make both answer alike."""
    first, second = (model_from(material.base, replace(RECIPE, seed=seed)) for seed in (1, 2))
    for parameter in trained_parameters(first).values():
        torch.nn.init.normal_(parameter, std=0.1)
    load_trained(second, trained_tensors(first))
    torch.testing.assert_close(logits_of(second), logits_of(first), rtol=0, atol=0)

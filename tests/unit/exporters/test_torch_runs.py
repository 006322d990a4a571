"""PyTorch's runs of random checkpoints: architectures in their published sizes, and what is run of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporters.errors import SourceRefused
from gateway.advising.knowledge import Architecture, knowledge
from gateway.advising.shape import Shape

torch = pytest.importorskip("torch")
runs = pytest.importorskip("exporters.torch_runs")

pytestmark = pytest.mark.export

TINY = Shape(layers=2, width=16, inner=32, heads=2, vocabulary=1100, window=32)
FAMILIES: dict[str, Architecture] = {
    "DistilBERT": "encoder",
    "GPT-2": "decoder",
    "Llama": "decoder",
    "BART": "encoder-decoder",
    "T5": "encoder-decoder",
}
COMPARED = (
    "albert-base-v2",
    "bart-base",
    "distilbert-base-uncased",
    "electra-base",
    "gpt-neo-125m",
    "longformer-base-4096",
    "mobilebert-uncased",
    "t5-small",
    "xlnet-base-cased",
)


@pytest.mark.parametrize("name", COMPARED)
def test_the_formula_counts_what_transformers_makes(name: str) -> None:
    """The parameters of a known shape are those of the architecture that transformers makes of it, within 6 %."""
    known = knowledge()
    one = known.named(name)
    with torch.device("meta"):  # counts, and takes no memory
        model = runs.MODELS[known.families[one.family].architecture].from_config(runs.config_of(one.family, one.shape))
    assert one.shape.count == pytest.approx(sum(part.numel() for part in model.parameters()), rel=0.06)


def test_every_family_with_a_public_checkpoint_has_an_architecture() -> None:
    """Each public checkpoint's family has an architecture of transformers, and an unknown one is refused by name."""
    assert {one.family for one in knowledge().checkpoints if one.hub} <= set(runs.MODEL_TYPES)
    with pytest.raises(SourceRefused, match="ALBERT"):
        runs.config_of("Nobody", TINY)


@pytest.mark.parametrize(("family", "architecture"), FAMILIES.items(), ids=FAMILIES)
def test_a_step_of_training_changes_every_kind_of_model(family: str, architecture: Architecture) -> None:
    """Forward changes no weight, and a step of training does, for what understands, generates and transforms."""
    shape = TINY if architecture != "encoder-decoder" else TINY.model_copy(update={"decoder_layers": 2})
    made = runs.TorchRuns.of_shape(family, architecture, shape, 1)
    before = [one.detach().clone() for one in made._model.parameters()]
    made.forward(2, 8)
    assert all(torch.equal(one, old) for one, old in zip(made._model.parameters(), before, strict=True))
    made.train(2, 8)
    assert any(not torch.equal(one, old) for one, old in zip(made._model.parameters(), before, strict=True))


def test_a_folder_is_loaded_with_its_weights(tmp_path: Path) -> None:
    """A checkpoint's folder is loaded in fp32, as the kind of model that its configuration names."""
    made = runs.TorchRuns.of_shape("DistilBERT", "encoder", TINY, 1)
    made._model.save_pretrained(tmp_path, safe_serialization=True)
    loaded = runs.TorchRuns.of_folder(tmp_path, 1)
    assert loaded.parameters == made.parameters and type(loaded._model) is type(made._model)
    loaded.forward(1, 4)

"""Writes a finished checkpoint: weights, held-out texts, manifest and card.

A manifest says what a checkpoint is, where it came from and how well it scores; the build writes every figure. Imports
no training library, so that anyone can check a checkpoint against its manifest.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from deployments.replica.variant import file_sha256
from exporters.profiling import Advance
from exporters.sources.fetched import FETCHED_FILE, Fetched, completed
from exporters.starter.cards import Part

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

MANIFEST = "manifest.json"
CARD = "README.md"
DIGESTS = "checkpoints.sha256"


Manifest = TypeVar("Manifest", bound=Part)


def read_manifest(folder: Path, kind: type[Manifest]) -> Manifest:
    """The manifest in a checkpoint's folder. Raises `pydantic.ValidationError` if it is not of this kind."""
    return kind.model_validate_json((folder / MANIFEST).read_bytes())


def seal(folder: Path, manifest: Manifest, card: str) -> Manifest:
    """Writes card and manifest into a checkpoint's folder; returns the manifest with every file's digest."""
    (folder / CARD).write_text(card, encoding="utf-8")
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST]
    files = {path.relative_to(folder).as_posix(): file_sha256(path) for path in paths}
    sealed = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return sealed


def emptied(folder: Path) -> Path:
    """The folder, made anew without anything in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def pinned(fetched: Fetched, folder: Path, cache: Path, advance: Advance) -> Path:
    """Pins in a checkpoint's folder where its weights are; returns the folder of the whole checkpoint below the cache.

    Raises what `completed` raises.
    """
    write_json(msgspec.to_builtins(fetched), folder / FETCHED_FILE)
    return completed(folder, folder.name, file_sha256(folder / FETCHED_FILE), cache, advance)


def write_digests(out: Path) -> None:
    """Writes the digests of the checkpoints below `out` in `sha256sum` format, for `sources.starter_files`."""
    checkpoints = out / "checkpoints"
    files = sorted(path for path in checkpoints.glob("*/**/*") if path.is_file() and path.name != CARD)
    lines = (f"{file_sha256(path)}  {path.relative_to(checkpoints).as_posix()}\n" for path in files)
    (out / DIGESTS).write_text("".join(lines), encoding="utf-8")


def write_weights(model: PreTrainedModel, folder: Path, left_out: Iterable[str] = ()) -> None:
    """Writes weights in fp16 with a config of fp32: half the file size, without half-precision arithmetic."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(config_of(model), folder / "config.json")
    kept = {name: tensor for name, tensor in model.state_dict().items() if name not in set(left_out)}
    write_halves(kept, folder / "model.safetensors")


def config_of(model: PreTrainedModel) -> dict[str, Any]:
    """The config of a model as a checkpoint has it: of fp32, and without the folder that it was read from."""
    config = {**model.config.to_diff_dict(), "architectures": [type(model).__name__], "dtype": "float32"}
    config.pop("_name_or_path", None)
    return config


def write_halves(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Writes tensors in fp16."""
    import torch
    from safetensors.torch import save_file

    halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(halves, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors writes mode 0600


def write_json(content: Mapping[str, Any], file: Path, sort_keys: bool = True) -> None:
    """Writes an object as JSON, indented by two spaces; equal objects give equal bytes."""
    file.write_text(json.dumps(content, indent=2, sort_keys=sort_keys) + "\n", encoding="utf-8")


def write_lines(rows: Iterable[Mapping[str, Any]], file: Path, ascii_only: bool = True) -> None:
    """Writes held-out texts as JSON Lines with keys in order; equal rows give equal bytes."""
    lines = (json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


TRAINED_WITH = ("torch", "transformers", "tokenizers", "safetensors")


def versions(*libraries: str) -> dict[str, str]:
    """The versions of Python and of these libraries."""
    return {"python": platform.python_version(), **{name: version(name) for name in libraries}}

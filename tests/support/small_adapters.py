"""A tiny base in made-up wheels and an adapter for it: what `exporters.sources.adapters` fetches, joins and merges."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save

from exporters.sources.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, BASE_FILE, Base
from exporters.sources.registry import Package

PARTS = 3
RANK, ALPHA = 2, 4
MEMBER = "*/input/*.zip.*"
CONFIG = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}


def sha256(content: bytes) -> str:
    """The hex digest of some bytes."""
    return hashlib.sha256(content).hexdigest()


def drawn(seed: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Random numbers in fp32; equal seeds give equal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def base_files() -> dict[str, bytes]:
    """The files of a base with one matrix of four by three and a vector, named as a bare encoder names them."""
    weights = {"layer.0.dense.weight": drawn(1, 4, 3), "layer.0.dense.bias": drawn(2, 4)}
    return {
        "config.json": json.dumps({"model_type": "bert"}).encode(),
        "model.safetensors": save(weights, metadata={"format": "pt"}),
        "tokenizer.json": b'{"version": "1.0"}',
    }


def write_wheels(files: Mapping[str, bytes], folder: Path) -> tuple[Package, ...]:
    """Writes installable wheels whose members joined are a zip with the files in a folder `tiny/`."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"tiny/{name}", content)
        archive.writestr("tiny/pooling/config.json", "{}")
    content, packages = whole.getvalue(), []
    size = -(-len(content) // PARTS)
    for at in range(PARTS):
        name, part = f"tiny_part_{at + 1:03}", content[at * size : (at + 1) * size]
        wheel = folder / f"{name}-0.0.1-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{name}/__init__.py", "")
            archive.writestr(f"{name}/input/tiny.zip.{at + 1:03}", part)
            about = f"{name}-0.0.1.dist-info"
            archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.0.1\n")
            archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{about}/RECORD", "")
        digest = sha256(wheel.read_bytes())
        packages.append(Package(name.replace("_", "-"), "0.0.1", wheel.name, digest, "MIT", binary=True))
    return tuple(packages)


def base_of(files: Mapping[str, bytes], packages: tuple[Package, ...]) -> Base:
    """The pinned base of these wheels."""
    pinned = {f"tiny/{name}": sha256(content) for name, content in files.items()}
    return Base(packages, MEMBER, pinned, sum(map(len, files.values())))


def write_adapter(base: Base, folder: Path) -> Path:
    """Writes an adapter of the one matrix with a head of its own, in fp16; returns its folder."""
    folder.mkdir(parents=True)
    trained = {
        "base_model.model.bert.layer.0.dense.lora_A.weight": drawn(3, RANK, 3),
        "base_model.model.bert.layer.0.dense.lora_B.weight": drawn(4, 4, RANK),
        "base_model.model.classifier.weight": drawn(5, 2, 4),
    }
    halves = {name: tensor.astype(np.float16) for name, tensor in trained.items()}
    (folder / ADAPTER_WEIGHTS).write_bytes(save(halves))
    (folder / ADAPTER_CONFIG).write_text(json.dumps({"r": RANK, "lora_alpha": ALPHA}))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / BASE_FILE).write_bytes(msgspec.json.encode(base))
    return folder

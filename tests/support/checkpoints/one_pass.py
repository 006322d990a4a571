"""Laws of every variant whose replicas answer by one run of an engine, for the tests of each kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deployments.replica.variant import VariantRejected, open_variant
from exporters.export import profile_again
from gateway.model.manifest import MANIFEST_NAME


def assert_changed_answers_are_rejected(variant: Path, tmp_path: Path) -> None:
    """A replica refuses a variant whose golden inputs give other logits."""
    changed = shutil.copytree(variant, tmp_path / "changed")
    manifest = json.loads((changed / MANIFEST_NAME).read_text())
    manifest["self_test"]["golden"][0]["logits"][0] += 99.0
    (changed / MANIFEST_NAME).write_text(json.dumps(manifest))
    with pytest.raises(VariantRejected, match="golden input 0, logits"):
        open_variant(changed, threads=1)


def assert_measured_again(variant: Path, tmp_path: Path, threads: int = 1) -> None:
    """Measuring a variant again changes the profile of its manifest and nothing else."""
    again = shutil.copytree(variant, tmp_path / "again")
    before = open_variant(again, threads=1).manifest
    after = profile_again(again, threads, lambda step, share: None, 0.05)
    assert type(after) is type(before) and after.profile.threads == threads
    assert after.model_copy(update={"profile": before.profile}) == before

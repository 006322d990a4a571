"""What a first start waits for, and what comes behind it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from by_hand import entry_of
from rich.console import Console
from waiting import wait_until

from deployments.engines.host import Host
from deployments.replica.prepared import NeverReady, note_prepared
from exporters.errors import BaseAbsent, ExportFailed, SourceAbsent, VariantRefused
from exporters.preparing.behind import Behind, _end, late_ones, reason_of
from exporters.preparing.prepare import prepare, preparer_here
from gateway.catalogs.catalog import Catalog, CatalogEntry, load_catalog
from gateway.model.manifest import MANIFEST_NAME
from gateway.model.tier import Tier

HOST = Host("any", 2, frozenset({"avx512_vnni"}))

LARGE = ["mpnet-sentiment", "all-mpnet-base"]


def entry(name: str, tier: Tier, task: str = "classify", domain: str | None = None) -> CatalogEntry:
    """A catalog entry that is never prepared."""
    return entry_of(name, task, tier, family="any", source=f"./{name}", domain=domain)


SWIFT, GRAND = entry("swift", Tier.REALTIME), entry("grand", Tier.QUALITY)
SCRIBE, STUDY = entry("scribe", Tier.REALTIME, "summarize", "news"), entry("study", Tier.QUALITY, "summarize")
CATALOG = Catalog(name="all", checkpoints=(GRAND, SWIFT, SCRIBE, STUDY))


@pytest.mark.parametrize(
    ("missing", "late"),
    [
        ((), ()),
        ((GRAND,), (GRAND,)),
        ((GRAND, SWIFT), (GRAND,)),
        ((STUDY,), ()),
        ((SCRIBE,), (SCRIBE,)),
        (CATALOG.checkpoints, (GRAND, SCRIBE)),
    ],
)
def test_a_start_waits_for_one_of_each_task(missing: tuple[CatalogEntry, ...], late: tuple[CatalogEntry, ...]) -> None:
    """What is missing comes late, but of each task one that answers any domain: the one of the lowest tier."""
    assert late_ones(CATALOG, missing) == late


def test_only_the_large_starter_checkpoints_take_long(tmp_path: Path) -> None:
    """Of the starter catalog nothing but the two of one large base, which must be fetched, takes long."""
    preparer = preparer_here(tmp_path, Console(quiet=True), HOST, openvino=False)
    catalog = load_catalog("starter")
    assert [one.name for one in catalog.checkpoints if preparer.takes_long(one)] == LARGE
    assert all(preparer.is_missing(one) for one in catalog.checkpoints)


def test_a_source_on_the_hub_takes_long_until_it_was_fetched(tmp_path: Path) -> None:
    """A checkpoint of the Hub that was never seen is not fetched to find out how large it is."""
    preparer = preparer_here(tmp_path, Console(quiet=True), HOST, openvino=False)
    hub = load_catalog("hub").checkpoints
    assert hub and all(preparer.takes_long(one) for one in hub if one.revision is not None)


def test_a_reason_has_no_path() -> None:
    """What clients are told of a failed preparation is a sentence without a folder of the host."""
    errors = (
        BaseAbsent("/srv/secret"),
        SourceAbsent("/srv/secret"),
        ExportFailed("/srv/secret"),
        VariantRefused("grand", "onnx-fp32", "97.7 % of its labels agree", ()),
        OSError("/srv/secret"),
    )
    reasons = [reason_of(error) for error in errors]
    assert len(set(reasons)) == 4 and all(reasons) and not any("secret" in reason for reason in reasons)
    assert "97.7 %" in reasons[3]


def test_what_fails_says_why_to_clients_and_more_to_the_operator(tmp_path: Path) -> None:
    """A late checkpoint whose source is not here is never ready: the message has the folder, the reason has not."""
    preparer = preparer_here(tmp_path, Console(quiet=True), HOST, openvino=False)
    missing = entry("nowhere", Tier.QUALITY).model_copy(update={"source": str(tmp_path / "nowhere")})
    behind = Behind(preparer, [missing], {})
    with pytest.raises(NeverReady, match=str(tmp_path)) as never:
        behind.prepare("nowhere")
    assert never.value.reason == "its source cannot be used" and behind.names == ("nowhere",)


def test_without_the_exporters_a_start_goes_on_without_what_was_not_prepared(tmp_path: Path) -> None:
    """Without torch, a checkpoint that is not prepared is left out and named if its task has another."""
    catalog = load_catalog("starter")
    for one in catalog.checkpoints:
        if one.name != "mpnet-sentiment":
            folder = tmp_path / "variants" / one.name
            folder.mkdir(parents=True)
            (folder / MANIFEST_NAME).write_text("{}")
            note_prepared(tmp_path, one, folder)
    console = Console(record=True, quiet=False, width=200)
    with console.capture() as heard:
        folders = prepare(catalog, tmp_path, console, can_make=False)
    assert set(folders) == {one.name for one in catalog.checkpoints} - {"mpnet-sentiment"}
    assert "no variant of mpnet-sentiment" in heard.get()


def test_a_stop_ends_a_job_and_what_it_has_started() -> None:
    """The end of a job ends the processes that it has started too."""
    starts = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']).wait()"
    job = subprocess.Popen([sys.executable, "-c", starts], text=True)
    wait_until(lambda: bool(psutil.Process(job.pid).children()))
    (other,) = psutil.Process(job.pid).children()
    _end(job)
    wait_until(lambda: not other.is_running() or other.status() == psutil.STATUS_ZOMBIE)
    assert job.poll() is not None

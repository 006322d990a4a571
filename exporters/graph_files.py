"""A variant's graphs, from the scratch folder they were exported into to the variant's own, quantised where planned."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from exporters.plan import Step, Workbench
from exporters.quantise import quantise
from gateway.model.manifest import Precision


@contextmanager
def scratch_folder(bench: Workbench) -> Iterator[Path]:
    """An empty folder on the variant's own disk, gone with all that is left in it when the block ends."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as folder:
        yield Path(folder)


def place_graphs(bench: Workbench, scratch: Path, names: Sequence[str]) -> None:
    """Leaves the named fp32 graphs of the scratch folder, in the plan's precision, in the variant's.

    One after the other: quantising takes memory for several times its graph, so let go of the model before.
    """
    for at, name in enumerate(names):
        if bench.plan.precision is Precision.INT8:
            bench.progress(Step.QUANTISING, at / len(names))
            quantise(scratch / name, bench.folder / name)
        for file in scratch.glob(f"{name}*"):
            if bench.plan.precision is Precision.INT8:
                file.unlink()
            else:
                file.rename(bench.folder / file.name)

"""How the making of variants looks at the terminal: a progress line, and tables of what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from exporters.errors import VariantRefused
from exporters.export import Progress, Step, VariantPlan
from gateway.manifest import VariantManifest
from gateway.profile import LatencyProfile, ProfileDocument


@contextmanager
def shown(plan: VariantPlan, console: Console) -> Iterator[Progress]:
    """A line that says which variant is being made, at which step, how far."""
    columns = (TextColumn("{task.fields[variant]}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=console) as bar:
        line = bar.add_task("starting", total=len(Step), variant=f"{plan.checkpoint} {plan.variant}")

        def progress(step: Step, share: float) -> None:
            bar.update(line, description=step, completed=list(Step).index(step) + share)

        yield progress
        bar.update(line, description="ready", completed=len(Step))


def variants_table(manifests: Sequence[VariantManifest], sizes_bytes: Sequence[int]) -> Table:
    """One row a variant: its size and how well it agrees with its source."""
    table = Table("precision", "size, MB", "agreement", "accuracy", "source accuracy", "largest logit difference")
    for manifest, size in zip(manifests, sizes_bytes, strict=True):
        found = manifest.verification
        table.add_row(
            manifest.precision,
            f"{size / 1e6:.1f}",
            f"{found.label_agreement:.2%} of {found.texts}",
            _share(found.accuracy),
            _share(found.source_accuracy),
            f"{found.largest_logit_difference:.2g}",
        )
    return table


def profile_table(document: ProfileDocument) -> Table:
    """Median service times in ms: a row for each batch size, a column for each token length."""
    profile = LatencyProfile.from_document(document)
    threads = f"{document.threads} thread{'' if document.threads == 1 else 's'}"
    table = Table("batch", *(f"{length} tokens" for length in profile.lengths))
    table.title = f"median service time in ms, {threads} on {document.measured_on}"
    for batch, row in zip(profile.batches, profile.medians_s, strict=True):
        table.add_row(str(batch), *(f"{seconds * 1000:.2f}" for seconds in row))
    return table


def differences_table(refused: VariantRefused) -> Table:
    """The worst texts of a refused variant, by their place in the verification set."""
    table = Table("text", "source says", "score", "variant says", "score", title=str(refused))
    for row in refused.differences:
        scores = (f"{row.source_score:.3f}", f"{row.variant_score:.3f}")
        table.add_row(str(row.text), row.source_label, scores[0], row.variant_label, scores[1])
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"

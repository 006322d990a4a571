"""How the making of variants looks at the terminal: a progress line, and tables of what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from exporters.errors import VariantRefused
from exporters.plan import Progress, Step, VariantPlan
from gateway.model.manifest import ClassifierManifest, ExtractiveManifest, Seq2SeqManifest, VariantManifest
from gateway.model.profile import LatencyProfile, ProfileDocument


@contextmanager
def shown_together(plans: Sequence[VariantPlan], console: Console) -> Iterator[list[Progress]]:
    """A line for each of several variants that are made side by side."""
    columns = (TextColumn("{task.fields[variant]}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bar(*columns, console=console) as bar:
        yield [_line(bar, plan) for plan in plans]
        for line in bar.task_ids:
            bar.update(line, description="ready", completed=len(Step))


def _line(bar: Bar, plan: VariantPlan) -> Progress:
    line = bar.add_task("waiting", total=len(Step), variant=f"{plan.checkpoint} {plan.variant}", start=False)

    def progress(step: Step, share: float) -> None:
        bar.start_task(line)
        bar.update(line, description=step, completed=list(Step).index(step) + share)

    return progress


@contextmanager
def shown(plan: VariantPlan, console: Console) -> Iterator[Progress]:
    """A line that says which variant is being made, at which step, how far."""
    with shown_together([plan], console) as lines:
        yield lines[0]


def variant_table(manifest: VariantManifest, size_bytes: int) -> Table:
    """One row: the variant's size and how well it agrees with its source, by the measures of its kind."""
    cells = {"precision": str(manifest.precision), "size, MB": f"{size_bytes / 1e6:.1f}"} | _agreement(manifest)
    table = Table(*cells)
    table.add_row(*cells.values())
    return table


def profile_tables(manifest: VariantManifest) -> list[Table]:
    """Median service times in ms: a row for each batch size, a column for each token length.

    An encoder-decoder has a second table, of a later decoding step by rows and tokens of the source.
    """
    if not isinstance(manifest, Seq2SeqManifest):
        return [_profile_table(manifest.profile, "service time", "batch")]
    return [
        _profile_table(manifest.profile, "reading and first step", "batch"),
        _profile_table(manifest.step_profile, "each later step", "rows"),
    ]


def differences_table(refused: VariantRefused) -> Table:
    """The worst texts of a refused variant, by their place among those that it was verified on."""
    table = Table("text", "source says", "variant says", title=escape(str(refused)))
    for row in refused.differences:
        table.add_row(str(row.text), escape(row.source), escape(row.variant))
    return table


def _agreement(manifest: VariantManifest) -> dict[str, str]:
    """What the columns of the verification say, by their titles."""
    match manifest:
        case ClassifierManifest(verification=found):
            return {
                "agreement": _against(found.label_agreement, found.label_agreement_floor, found.texts),
                "accuracy": _share(found.accuracy),
                "source accuracy": _share(found.source_accuracy),
                "largest logit difference": f"{found.largest_logit_difference:.2g}",
            }
        case Seq2SeqManifest(verification=found):
            return {
                "written alike": _against(found.same_tokens, found.same_tokens_floor, found.texts),
                "ROUGE-L against the source": f"{found.rouge_l_to_source:.3f}",
                "ROUGE-L": _rouge(found.rouge_l),
                "source ROUGE-L": _rouge(found.source_rouge_l),
                "tokens written": f"{manifest.output_tokens:.0f}",
            }
        case ExtractiveManifest(verification=found):
            return {
                "same choice": _against(found.same_choice, found.same_choice_floor, found.texts),
                "least cosine": f"{found.least_cosine:.3f}",
                "ROUGE-L": _rouge(found.rouge_l),
                "source ROUGE-L": _rouge(found.source_rouge_l),
            }
        case _:
            return {"agreement": _share(manifest.agreement)}


def _profile_table(document: ProfileDocument, what: str, first: str) -> Table:
    profile = LatencyProfile.from_document(document)
    threads = f"{document.threads} thread{'' if document.threads == 1 else 's'}"
    table = Table(first, *(f"{length} tokens" for length in profile.lengths))
    table.title = f"median {what} in ms, {threads} on {document.measured_on}"
    for batch, row in zip(profile.batches, profile.medians_s, strict=True):
        table.add_row(str(batch), *(f"{seconds * 1000:.2f}" for seconds in row))
    return table


def _against(share: float, floor: float, texts: int) -> str:
    return f"{share:.2%} of {texts} (floor {floor:.1%})"


def _rouge(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"

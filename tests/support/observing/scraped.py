"""A scrape as tests read it: the samples of a metric, with their labels."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def samples(text: str | bytes, name: str) -> list[tuple[dict[str, str], float]]:
    """Return the labels and values of a metric's samples."""
    text = text.decode() if isinstance(text, bytes) else text
    families = text_string_to_metric_families(text)
    return [(dict(one.labels), one.value) for family in families for one in family.samples if one.name == name]


def total(text: str | bytes, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples with these labels. Raises KeyError if there are none."""
    found = [value for had, value in samples(text, name) if labels.items() <= had.items()]
    if not found:
        raise KeyError(name)
    return sum(found)


def series(text: str | bytes) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """Return every series of a text."""
    text = text.decode() if isinstance(text, bytes) else text
    families = text_string_to_metric_families(text)
    return {(one.name, frozenset(one.labels.items())) for family in families for one in family.samples}

"""Makes the kinds of panel of the dashboards: a figure, lines, a heat map, a table, words.

Only this module knows the panels of grafana-foundation-sdk. Every panel's `meaning` says what it shows and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, text, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as prometheus_model
from grafana_foundation_sdk.models import text as text_model

from helm.dashboards.words import PLAIN, Limit

PanelBuilder = Builder[model.Panel]
SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True, slots=True)
class Query:
    """A Prometheus expression and the legend of its series."""

    expr: str
    legend: str = ""


class _Framed(Protocol):
    """The options that every kind of panel has."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def datasource(self, datasource: model.DataSourceRef) -> Self: ...
    def span(self, w: int) -> Self: ...
    def height(self, h: int) -> Self: ...
    def with_target(self, target: Builder[Dataquery]) -> Self: ...


Kind = TypeVar("Kind", bound=_Framed)


def figure(
    title: str,
    meaning: str,
    unit: str,
    query: Query,
    limits: Sequence[Limit] = PLAIN,
    *,
    wide: int = 4,
    decimals: int = 1,
) -> PanelBuilder:
    """Shows the last value in large, coloured by its limits, over a line of its history."""
    panel = _framed(stat.Panel(), title, meaning, [query], wide, high=5)
    return (
        panel.unit(unit)
        .decimals(decimals)
        .thresholds(_thresholds(limits))
        .color_mode(common_model.BigValueColorMode.BACKGROUND)
        .graph_mode(common_model.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("no data")
    )


def lines(
    title: str,
    meaning: str,
    unit: str,
    *queries: Query,
    limits: Sequence[Limit] = (),
    colours: Mapping[str, str] | None = None,
    stacked: bool = False,
    most: float | None = None,
    wide: int = 8,
) -> timeseries.Panel:
    """Draws series over time, with dashed lines at the limits. `colours` is by a word in a series' name."""
    panel = _framed(timeseries.Panel(), title, meaning, queries, wide, high=8).unit(unit).min(0)
    panel.legend(
        common.VizLegendOptions()
        .display_mode(common_model.LegendDisplayMode.TABLE)
        .placement(common_model.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    panel.tooltip(common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI))
    panel.show_points(common_model.VisibilityMode.AUTO).line_width(1.5).fill_opacity(70 if stacked else 8)
    if stacked:
        panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    if most is not None:
        panel.axis_soft_max(most)
    if limits:
        style = common.GraphThresholdsStyleConfig().mode(common_model.GraphThresholdsStyleMode.DASHED)
        panel.thresholds(_thresholds(limits)).thresholds_style(style)
    for word, colour in (colours or {}).items():
        fixed = {"mode": "fixed", "fixedColor": colour}
        panel.override_by_regexp(rf"/\b{word}\b/", [model.DynamicConfigValue(id_val="color", value=fixed)])
    return panel


def heat(title: str, meaning: str, unit: str, expr: str, *, wide: int = 12) -> PanelBuilder:
    """Draws a histogram over time. The series of the expression have the label `le` only."""
    panel = _framed(heatmap.Panel(), title, meaning, [], wide, high=8)
    target = _target(Query(expr, "{{le}}"), 0).format(prometheus_model.PromQueryFormat.HEATMAP)
    colours = heatmap.HeatmapColorOptions().mode(heatmap_model.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return (
        panel.with_target(target)
        .unit("reqps")
        .calculate(False)
        .color(colours.scale(heatmap_model.HeatmapColorScale.EXPONENTIAL).exponent(0.5))
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(common_model.AxisPlacement.LEFT))
        .mode(common_model.TooltipDisplayMode.SINGLE)
        .show_legend()
    )


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table: its heading, its expression for the current value, its unit and its limits."""

    heading: str
    expr: str
    unit: str = "short"
    limits: tuple[Limit, ...] = ()


def listing(
    title: str, meaning: str, hidden: Sequence[str], *columns: Column, wide: int = 24, high: int = 8
) -> PanelBuilder:
    """Makes a table of columns joined by their labels, without the `hidden` ones."""
    panel = _framed(table.Panel(), title, meaning, [], wide, high)
    for place, column in enumerate(columns):
        target = _target(Query(column.expr), place).instant().format(prometheus_model.PromQueryFormat.TABLE)
        panel.with_target(target)
        properties = [model.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.limits:
            coloured = {"type": "color-text"}
            properties += [
                model.DynamicConfigValue(id_val="thresholds", value=_thresholds(column.limits).build()),
                model.DynamicConfigValue(id_val="custom.cellOptions", value=coloured),
            ]
        panel.override_by_name(column.heading, properties)
    values = [f"Value #{_letter(place)}" for place in range(len(columns))] if len(columns) > 1 else ["Value"]
    renamed = {value: column.heading for value, column in zip(values, columns, strict=True)}
    organised = {"excludeByName": dict.fromkeys(["Time", *hidden], True), "renameByName": renamed}
    if len(columns) > 1:
        panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    return panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organised))


def words(title: str, content: str, *, wide: int = 24, high: int = 8) -> PanelBuilder:
    """Shows Markdown text."""
    return text.Panel().title(title).mode(text_model.TextMode.MARKDOWN).content(content).span(wide).height(high)


def _framed(panel: Kind, title: str, meaning: str, queries: Sequence[Query], wide: int, high: int) -> Kind:
    panel.title(title).description(meaning).datasource(SOURCE).span(wide).height(high)
    for place, query in enumerate(queries):
        panel.with_target(_target(query, place))
    return panel


def _target(query: Query, place: int) -> prometheus.Dataquery:
    return (
        prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(_letter(place)).range()
    )


def _letter(place: int) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[place]


def _thresholds(limits: Sequence[Limit]) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=limit.value, color=limit.colour) for limit in limits]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)

"""Makes what every dashboard has around its panels: variables, rows, and links to other dashboards and the runbook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from helm.dashboards.panels import SOURCE, PanelBuilder
from helm.dashboards.words import GATEWAY, RUNBOOK, TASK, TIER

TAG = "punctual"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading, which is the question that they answer."""

    heading: str
    panels: tuple[PanelBuilder, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """One dashboard. `uid` is its address and file name, `narrowed` the labels that readers can filter by."""

    uid: str
    title: str
    about: str
    narrowed: tuple[str, ...]
    rows: tuple[Row, ...]

    def model(self) -> model.Dashboard:
        """Builds the dashboard for Grafana, with panels numbered in order, so that it renders equally each time."""
        made = (
            dashboard.Dashboard(self.title)
            .uid(self.uid)
            .description(self.about)
            .tags([TAG])
            .readonly()
            .time("now-1h", "now")
            .refresh("10s")
            .timezone("browser")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .variables([_datasource(), _gateway(), *(_variable(name) for name in self.narrowed), _window()])
            .links(list(_links()))
            .annotations([])
        )
        for row in self.rows:
            made.with_row(dashboard.Row(row.heading))
            for panel in row.panels:
                made.with_panel(panel)
        built = made.build()
        _number(built.panels or ())
        return built


_SERIES = {
    "task": f"label_values(punctual_checkpoint_quality{{{GATEWAY}}}, task)",
    "tier": f"label_values(punctual_checkpoint_quality{{{TASK}}}, tier)",
    "checkpoint": f"label_values(punctual_checkpoint_quality{{{TIER}}}, checkpoint)",
}


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")


def _gateway() -> dashboard.QueryVariable:
    """The gateway that is shown, by the address at which it is scraped: one, for figures of two add up to neither's."""
    return (
        dashboard.QueryVariable("instance")
        .label("gateway")
        .datasource(SOURCE)
        .query("label_values(punctual_build_info, instance)")
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _variable(name: str) -> dashboard.QueryVariable:
    """A filter by a label, all by default. `.*` rather than `.+`, since refused requests have no checkpoint or tier."""
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query(_SERIES[name])
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _window() -> dashboard.CustomVariable:
    return (
        dashboard.CustomVariable("window")
        .label("window of the figures")
        .values("1m,5m,30m,1h,6h")
        .current(model.VariableOption(selected=True, text="5m", value="5m"))
    )


def _links() -> Sequence[dashboard.DashboardLink]:
    others = dashboard.DashboardLink("Punctual").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
    runbook = dashboard.DashboardLink("Runbook").type(model.DashboardLinkType.LINK).url(RUNBOOK)
    return [
        others.include_vars(True).keep_time(True).as_dropdown(False),
        runbook.icon("doc").tooltip("What each figure and alert means, and what to do").target_blank(True),
    ]


def _number(panels: Sequence[model.Panel | model.RowPanel]) -> None:
    for number, panel in enumerate(panels, start=1):
        panel.id_val = number

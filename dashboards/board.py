"""What every board has: variables, annotations, links to the other boards, and panels in rows of 24 columns."""

import json
from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from msgspec import Struct

from dashboards import promql
from dashboards.panels import DATASOURCE, Panel
from gateway.telemetry import names
from gateway.telemetry.metric import Metric

TAG = "gaugeway"


class Row(Struct, frozen=True):
    """Panels that belong together. A row without a title stands at the top, without a heading."""

    title: str
    panels: tuple[Panel, ...]


class Variable(Struct, frozen=True, kw_only=True):
    """A template variable: what it selects, and the family whose label values it offers.

    `after` are filters whose choice narrows this one's values.
    """

    filter: promql.Filter
    label: str
    family: Metric
    suffix: str = ""
    after: tuple[promql.Filter, ...] = ()
    narrows: bool = False
    """Whether `All` means the values on offer, not every value: then `after` narrows other families through it."""

    def query(self) -> str:
        """The Prometheus data source's variable query."""
        values = next(one for one in self.filter.labels if one in (*self.family.labels, *promql.TARGET_LABELS))
        source = promql.Source(filters=self.after)
        return f"label_values({source.select(self.family, suffix=self.suffix)}, {values})"


JOB = Variable(filter=promql.JOB, label="Job", family=names.BUILD_INFO)
INSTANCE = Variable(filter=promql.INSTANCE, label="Instance", family=names.BUILD_INFO, after=(promql.JOB,))
ROUTE = Variable(filter=promql.ROUTE, label="Route", family=names.REQUESTS, after=(promql.JOB,))
TEAM = Variable(filter=promql.TEAM, label="Team", family=names.REQUESTS, after=(promql.JOB,))
PROVIDER = Variable(filter=promql.PROVIDER, label="Provider", family=names.ATTEMPTS, after=(promql.JOB,))
GEN_AI_PROVIDER = Variable(
    filter=promql.GEN_AI_PROVIDER,
    label="Provider",
    family=names.OPERATION_DURATION,
    suffix="_count",
    after=(promql.JOB,),
)
MODEL = Variable(filter=promql.MODEL, label="Model", family=names.ATTEMPTS, after=(promql.JOB,))
MODEL_OF_PROVIDER = Variable(
    filter=promql.MODEL, label="Model", family=names.ATTEMPTS, after=(promql.JOB, promql.PROVIDER), narrows=True
)
BUDGET = Variable(filter=promql.BUDGET, label="Budget", family=names.BUDGET_LIMIT, after=(promql.JOB,))


class Board(Struct, frozen=True, kw_only=True):
    """One dashboard. `uid` is part of links and never changes; `name` is its file under generated/."""

    uid: str
    name: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    since: str = "now-3h"


def source(variables: Sequence[Variable]) -> promql.Source:
    """The expressions of a board with these variables."""
    return promql.Source(filters=tuple(variable.filter for variable in variables))


def render(board: Board) -> str:
    """The JSON of a board, in the classic schema that file provisioning takes; the same bytes for the same board."""
    document = json.loads(json.dumps(_build(board), cls=JSONEncoder))
    for made, wanted in zip(document["annotations"]["list"], _annotations(source(board.variables)), strict=True):
        # The SDK's model has no fields for what an annotation says; Grafana's Prometheus data source reads these.
        made |= {"titleFormat": wanted.title, "textFormat": wanted.text, "step": "60s"}
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _build(board: Board) -> model.Dashboard:
    dashboard = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .readonly()
        .refresh("30s")
        .time(board.since, "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .with_variable(
            build.DatasourceVariable("datasource")
            .label("Data source")
            .type("prometheus")
            .current(model.VariableOption(text="Prometheus", value="prometheus", selected=True))
        )
        .link(_links())
    )
    for variable in board.variables:
        dashboard = dashboard.with_variable(_variable(variable))
    for annotation in _annotations(source(board.variables)):
        dashboard = dashboard.annotation(
            build.AnnotationQuery()
            .name(annotation.name)
            .datasource(DATASOURCE)
            .enable(True)
            .icon_color(annotation.colour)
            .expr(annotation.expr)
        )
    number = 0
    for row in board.rows:
        if row.title:
            number += 1
            dashboard = dashboard.with_row(build.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            dashboard = dashboard.with_panel(panel.id(number))
    return dashboard.build()


def _links() -> build.DashboardLink:
    return (
        build.DashboardLink("Gaugeway")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(False)
        .include_vars(True)
        .keep_time(True)
    )


def _variable(variable: Variable) -> build.QueryVariable:
    made = (
        build.QueryVariable(variable.filter.variable)
        .label(variable.label)
        .datasource(DATASOURCE)
        .query({"query": variable.query(), "refId": f"variable-{variable.filter.variable}"})
        .multi(True)
        .include_all(True)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .current(model.VariableOption(text=["All"], value=["$__all"], selected=True))
    )
    # `.*` and not `.+`: a series without the label (a refusal before any route) belongs to All.
    scraped = variable.filter.variable in promql.TARGET_LABELS
    return made if variable.narrows else made.all_value(".+" if scraped else ".*")


class _Annotation(Struct, frozen=True):
    name: str
    colour: str
    expr: str
    title: str
    text: str


def _annotations(of: promql.Source) -> tuple[_Annotation, ...]:
    runs = of.gauge(names.BUILD_INFO, by=("version",), fold="count")
    ran = of.gauge(names.BUILD_INFO, by=("version",), fold="count", offset="2m")
    reloads = of.gauge_over("changes", names.CONFIG_RELOAD_TIMESTAMP, window="2m", by=("instance",))
    firing = promql.Source().select(
        promql.ALERTS, promql.is_("alertstate", "firing"), promql.is_("service", "gaugeway")
    )
    return (
        _Annotation("Deploys", "blue", f"{runs} unless {ran}", "Deployed", "version {{version}}"),
        _Annotation("Reloads", "purple", f"{reloads} > 0", "Configuration reloaded", "{{instance}}"),
        _Annotation("Alerts", "red", firing, "{{alertname}}", "{{severity}} {{route}} {{provider}} {{budget}}"),
    )

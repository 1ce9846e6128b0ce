"""The kinds of panel that the boards are made of: one look, one set of defaults, for every board.

A panel is made from queries, a unit and a description. The description says what to do when the panel looks wrong.
"""

from collections.abc import Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heatmap_model
from grafana_foundation_sdk.models import prometheus as query_model
from msgspec import Struct

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, ORANGE, RED, BLUE, PURPLE, TEXT = "green", "#EAB839", "orange", "red", "blue", "purple", "text"
PERCENTILE_COLOURS = {"p50": "#73BF69", "p95": "#F2CC0C", "p99": "#FF780A"}
OUTCOME_COLOURS = {"ok": GREEN, "caller": BLUE, "policy": PURPLE, "provider": ORANGE, "gateway": RED}


class Unit:
    """Grafana's unit ids that the boards use."""

    SECONDS = "s"
    PER_SECOND = "suffix:/s"
    COUNT = "short"
    SHARE = "percentunit"
    USD = "currencyUSD"
    BYTES = "bytes"
    BURN = "suffix:x"
    TOKENS_PER_SECOND = "suffix:tok/s"
    TOKENS = "suffix:tok"
    USD_PER_HOUR = "suffix:USD/h"
    CORES = "suffix:cores"
    MOMENT = "dateTimeFromNow"


_AT_LEAST = {Unit.SHARE: 0.01, Unit.PER_SECOND: 0.1, Unit.COUNT: 1.0, Unit.USD: 0.01}
"""How far an axis reaches where all is zero; Grafana would go to 100."""
_AXIS_WIDTH = 70
"""Pixels: wide enough for every unit, and the same everywhere, so that graphs above each other agree in time."""


class Link(Struct, frozen=True):
    """Where a click on a value leads: the board with this uid, with the same time range, and `variable` chosen.

    `value` is Grafana's variable for the chosen value: a table cell's own text, or a label of the series.
    """

    title: str
    uid: str
    variable: str
    value: str = "${__value.text}"

    def option(self) -> model.DynamicConfigValue:
        """The field option."""
        kept = "${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}"
        url = f"/d/{self.uid}?{kept}&var-{self.variable}={self.value}"
        return model.DynamicConfigValue("links", [{"title": self.title, "url": url}])


class Query(Struct, frozen=True, kw_only=True):
    """One PromQL query of a panel.

    `exemplar` asks for the trace ids beside a histogram's or a cost counter's samples.
    """

    expr: str
    legend: str = ""
    instant: bool = False
    exemplar: bool = False


Panel = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel | heatmap.Panel | statetimeline.Panel
_P = TypeVar("_P", timeseries.Panel, stat.Panel, bargauge.Panel, table.Panel, heatmap.Panel, statetimeline.Panel)


def time_series(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    width: int = 8,
    height: int = 6,
    stacked: bool = False,
    limit: float | None = None,
    colours: dict[str, str] | None = None,
    maximum: float | None = None,
    no_value: str = "",
    table_legend: bool = False,
) -> timeseries.Panel:
    """Lines over time.

    `limit` draws the alert's threshold as a dashed line that is always in view, `colours` fixes series by name, and `table_legend` ranks the
    series with their last and largest values beside the graph.
    """
    panel = timeseries.Panel()
    panel = _frame(panel, title, description, queries, unit, width, height)
    panel = (
        panel.min(0)
        .line_width(1)
        .fill_opacity(40 if stacked else 3)
        .show_points(look.VisibilityMode.NEVER)
        .span_nulls(False)
        .legend(_table_legend() if table_legend else _list_legend())
        .tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
        .axis_width(_AXIS_WIDTH)
    )
    reach = max(_AT_LEAST.get(unit, 0.0), 1.05 * (limit or 0.0))
    if reach:
        panel = panel.axis_soft_max(reach)
    if maximum is not None:
        panel = panel.max(maximum)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL).group("A"))
    if limit is not None:
        panel = panel.thresholds(steps((None, "transparent"), (limit, RED))).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode.DASHED)
        )
    for name, colour in {**PERCENTILE_COLOURS, **(colours or {})}.items():
        panel = panel.override_by_name(name, [_fixed(colour)])
    return panel.no_value(no_value) if no_value else panel


def single(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    width: int = 3,
    height: int = 3,
    thresholds: build.ThresholdsConfig | None = None,
    decimals: int | None = None,
    no_value: str = "–",
    spark: bool = False,
) -> stat.Panel:
    """One number, coloured by thresholds."""
    panel = _frame(stat.Panel(), title, description, [query], unit, width, height)
    panel = (
        panel.no_value(no_value)
        .color_mode(look.BigValueColorMode.VALUE)
        .graph_mode(look.BigValueGraphMode.AREA if spark and not query.instant else look.BigValueGraphMode.NONE)
        .justify_mode(look.BigValueJustifyMode.AUTO)
        .text_mode(look.BigValueTextMode.VALUE)
        .text(common.VizTextDisplayOptions().value_size(30))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(thresholds or steps((None, TEXT)))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        # Nothing known is neither good nor bad: without this it has the colour of zero.
        .mappings([_unknown(no_value)])
    )
    return panel.decimals(decimals) if decimals is not None else panel


def bars(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    unit: str,
    width: int = 8,
    height: int = 7,
    thresholds: build.ThresholdsConfig | None = None,
    maximum: float | None = None,
    no_value: str = "–",
    link: Link | None = None,
) -> bargauge.Panel:
    """One horizontal bar a series, for ranking."""
    panel = _frame(bargauge.Panel(), title, description, queries, unit, width, height)
    panel = (
        panel.min(0)
        .no_value(no_value)
        .orientation(look.VizOrientation.HORIZONTAL)
        .display_mode(look.BarGaugeDisplayMode.BASIC)
        .show_unfilled(True)
        .value_mode(look.BarGaugeValueMode.TEXT)
        .min_viz_height(16)
        .max_viz_height(28)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(thresholds or steps((None, BLUE)))
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    )
    if link is not None:
        panel = panel.override_by_regexp(".*", [link.option()])
    return panel.max(maximum) if maximum is not None else panel


def buckets(
    title: str, description: str, query: Query, *, unit: str, width: int = 12, height: int = 8
) -> heatmap.Panel:
    """A histogram family's buckets over time, whose bounds are in `unit`; the query sums increases by `le`."""
    panel = heatmap.Panel()
    # A cell is a count; the unit is the axis's.
    panel = _frame(
        panel, title, description, [query], Unit.COUNT, width, height, query_format=query_model.PromQueryFormat.HEATMAP
    )
    return (
        panel.calculate(False)
        .cell_gap(1)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmap_model.HeatmapColorMode.SCHEME)
            .scheme("Turbo")
            .steps(64)
            .exponent(0.5)
        )
        .y_axis(heatmap.YAxisConfig().unit(unit).axis_placement(look.AxisPlacement.LEFT))
        .cell_values(heatmap.CellValues().unit(Unit.COUNT))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .show_y_histogram()
        .show_color_scale(True)
        .exemplars_color("rgba(255,0,255,0.7)")
    )


class Column(Struct, frozen=True, kw_only=True):
    """One value column of a table: its heading, the query that fills it, and how a value is shown."""

    title: str
    expr: str
    unit: str
    thresholds: build.ThresholdsConfig | None = None
    decimals: int | None = None
    gauge: bool = False


def rows(
    title: str,
    description: str,
    labels: dict[str, str],
    columns: Sequence[Column],
    *,
    width: int = 8,
    height: int = 8,
    sort_by: str = "",
    links: Sequence[Link] = (),
    wide: Sequence[str] = (),
) -> table.Panel:
    """A table with one line for each combination of labels (label -> heading), joined over the columns' queries.

    `links` are those of the label columns, in order; `wide` are headings whose texts are long.
    """
    queries = [Query(expr=column.expr, instant=True) for column in columns]
    panel = _frame(
        table.Panel(),
        title,
        description,
        queries,
        Unit.COUNT,
        width,
        height,
        query_format=query_model.PromQueryFormat.TABLE,
    )
    names = {f"Value #{_ref(index)}": column.title for index, column in enumerate(columns)}
    if len(columns) == 1:
        names["Value"] = columns[0].title
    order = [*labels, *names]
    panel = (
        panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
        .with_transformation(
            model.DataTransformerConfig(
                id_val="organize",
                options={
                    "excludeByName": {"Time": True},
                    "indexByName": {name: index for index, name in enumerate(order)},
                    "renameByName": {**labels, **names},
                },
            )
        )
        .cell_height(look.TableCellHeight.SM)
        .show_header(True)
        .min_width(60)
        .no_value("–")
    )
    for index, heading in enumerate(labels.values()):
        options = [_width(190) if heading in wide else model.DynamicConfigValue("custom.minWidth", 90)]
        options += [links[index].option()] if index < len(links) else []
        panel = panel.override_by_name(heading, options)
    for column in columns:
        panel = panel.override_by_name(column.title, _cell(column))
    return panel.sort_by([common.TableSortByFieldState().display_name(sort_by).desc(True)]) if sort_by else panel


class State(Struct, frozen=True):
    """What a number of a state panel means."""

    value: int
    text: str
    colour: str


def states(
    title: str,
    description: str,
    query: Query,
    values: Sequence[State],
    *,
    width: int = 12,
    height: int = 7,
    no_value: str = "–",
) -> statetimeline.Panel:
    """Bands of named states over time."""
    panel = _frame(statetimeline.Panel(), title, description, [query], Unit.COUNT, width, height)
    options = {
        str(state.value): model.ValueMappingResult(text=state.text, color=state.colour, index=state.value)
        for state in values
    }
    return (
        panel.mappings([model.ValueMap(options=options)])
        .no_value(no_value)
        .merge_values(True)
        .row_height(0.8)
        .show_value(look.VisibilityMode.NEVER)
        .color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
        .thresholds(steps(*((None if index == 0 else float(s.value), s.colour) for index, s in enumerate(values))))
        .legend(_list_legend())
    )


def steps(*at: tuple[float | None, str]) -> build.ThresholdsConfig:
    """Absolute thresholds as (from, colour); the first starts at None, below everything."""
    return (
        build.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=colour) for value, colour in at])
    )


def _frame(
    panel: _P,
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    width: int,
    height: int,
    query_format: query_model.PromQueryFormat = query_model.PromQueryFormat.TIME_SERIES,
) -> _P:
    panel = panel.title(title).description(description).datasource(DATASOURCE).unit(unit).span(width).height(height)
    for index, query in enumerate(queries):
        instant = query.instant
        target = (
            prometheus.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend or "__auto")
            .ref_id(_ref(index))
            .datasource(DATASOURCE)
            .editor_mode(query_model.QueryEditorMode.CODE)
            .format(query_format)
        )
        target = target.instant() if instant else target.range()
        panel = panel.with_target(target.exemplar(True) if query.exemplar else target)
    return panel


def _unknown(text: str) -> model.SpecialValueMap:
    shown = model.ValueMappingResult(text=text, color=TEXT, index=0)
    return model.SpecialValueMap(
        options=model.DashboardSpecialValueMapOptions(match=model.SpecialValueMatch.NULL_AND_NAN, result=shown)
    )


def _list_legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(look.LegendDisplayMode.LIST)
        .placement(look.LegendPlacement.BOTTOM)
        .show_legend(True)
    )


def _table_legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .display_mode(look.LegendDisplayMode.TABLE)
        .placement(look.LegendPlacement.RIGHT)
        .calcs(["lastNotNull", "max"])
        .sort_by("Max")
        .sort_desc(True)
        .show_legend(True)
    )


def _ref(index: int) -> str:
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[index]


def _fixed(colour: str) -> model.DynamicConfigValue:
    return model.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})


def _width(pixels: int) -> model.DynamicConfigValue:
    return model.DynamicConfigValue("custom.width", pixels)


def _cell(column: Column) -> list[model.DynamicConfigValue]:
    properties = [model.DynamicConfigValue("unit", column.unit)]
    if column.decimals is not None:
        properties.append(model.DynamicConfigValue("decimals", column.decimals))
    if column.thresholds is not None:
        shown = {"type": "gauge", "mode": "basic"} if column.gauge else {"type": "color-text"}
        properties += [
            model.DynamicConfigValue("thresholds", column.thresholds.build()),
            model.DynamicConfigValue("custom.cellOptions", shown),
            model.DynamicConfigValue("color", {"mode": "thresholds"}),
        ]
        if column.gauge:
            properties += [model.DynamicConfigValue("min", 0), model.DynamicConfigValue("max", 1)]
    return properties

"""The rules of grafana/dashboard-linter that apply to Prometheus dashboards, and a few of our own, on the shipped files.

Rule names are the linter's. Its LogQL rules do not apply: no panel asks Loki.
"""

import re
from typing import Any

import pytest

from dashboards.promql import FOREIGN
from gateway.telemetry.names import CATALOGUE
from tests.dashboards.documents import DOCUMENTS, expressions, filled, panels, targets, variables
from tests.promql import SERIES, foreign_labels, uses

BOARDS = [pytest.param(document, id=name) for name, document in DOCUMENTS.items()]
each_board = pytest.mark.parametrize("board", BOARDS)
Json = dict[str, Any]


@each_board
def test_template_datasource_rule(board: Json) -> None:
    """One data source variable, called datasource, labelled, of type prometheus."""
    found = [one for one in board["templating"]["list"] if one["type"] == "datasource"]
    assert [(one["name"], one["label"], one["query"]) for one in found] == [("datasource", "Data source", "prometheus")]


@each_board
@pytest.mark.parametrize("name", ["job", "instance"])
def test_template_job_and_instance_rules(board: Json, name: str) -> None:
    """Job and instance can be chosen, several at once, and All means any value."""
    one = variables(board)[name]
    assert (one["type"], one["label"], one["multi"], one["includeAll"], one["allValue"]) == (
        "query",
        name.title(),
        True,
        True,
        ".+",
    )
    assert one["datasource"]["uid"] == "${datasource}"


@each_board
def test_template_label_promql_rule(board: Json) -> None:
    """Variables ask for label values of a series that exists, by a label that it has."""
    for one in variables(board).values():
        if one["type"] != "query":
            continue
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", one["query"]["query"])
        assert match, one["name"]
        selector = filled(match[1], board)
        assert not foreign_labels(f"sum by ({match[2]}) ({selector})"), one["name"]


@each_board
def test_template_on_time_change_reload_rule(board: Json) -> None:
    """Variables are asked again when the time range changes: yesterday had other models."""
    assert {one["refresh"] for one in variables(board).values() if one["type"] == "query"} == {2}


@each_board
def test_uneditable_dashboard_rule(board: Json) -> None:
    """A provisioned board cannot be edited in place: the change would be lost."""
    assert board["editable"] is False


@each_board
def test_panel_datasource_rule(board: Json) -> None:
    """Every panel and query uses the chosen data source."""
    for panel, target in targets(board):
        assert panel["datasource"] == target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@each_board
def test_panel_title_description_rule(board: Json) -> None:
    """Every panel has a title of its own, and a description long enough to say what it means or what to do."""
    titles = [panel["title"] for panel in panels(board)]
    assert len(titles) == len(set(titles))
    for panel in panels(board):
        assert len(panel["description"].split()) >= 5, panel["title"]
        assert panel["description"].endswith("."), panel["title"]


@each_board
def test_panel_units_rule(board: Json) -> None:
    """Every panel has a unit; a table has one for each of its value columns."""
    for panel in panels(board):
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        if panel["type"] == "table":
            units = [p for o in panel["fieldConfig"]["overrides"] for p in o["properties"] if p["id"] == "unit"]
            assert len(units) == len(panel["targets"]), panel["title"]


@each_board
def test_panel_no_targets_rule(board: Json) -> None:
    """Every panel asks something, and each of its queries has an id of its own."""
    for panel in panels(board):
        ids = [target["refId"] for target in panel["targets"]]
        assert ids, panel["title"]
        assert len(ids) == len(set(ids)), panel["title"]


@each_board
def test_target_promql_rule(board: Json) -> None:
    """Every expression parses, and names only series and labels that the catalogue has."""
    for where, expr in expressions(board):
        assert not foreign_labels(expr), where


@each_board
def test_target_rate_interval_rule(board: Json) -> None:
    """Rates use the scrape-aware interval, whatever the zoom; nothing else does."""
    for panel, target in targets(board):
        for function, window in re.findall(r"(\w+)\([^()]*\[([^\]]+)\]", target["expr"]):
            assert (function == "rate") <= (window == "$__rate_interval"), panel["title"]


@each_board
def test_target_job_and_instance_rules(board: Json) -> None:
    """Every selector of a scraped series is narrowed by the chosen job and instance."""
    for panel, target in targets(board):
        for use in uses(filled(target["expr"], board)):
            matched = {label for label, _, _ in use.matchers}
            # Alerts are Prometheus's own, with the labels of their rules.
            assert use.name in {"ALERTS", "ALERTS_FOR_STATE"} or {"job", "instance"} <= matched, (
                f"{panel['title']}: {use.name}"
            )


@each_board
def test_target_counter_agg_rule(board: Json) -> None:
    """Counters are only ever seen through rate or increase."""
    for where, expr in expressions(board):
        for use in uses(expr):
            if use.name.endswith(("_total", "_count", "_sum", "_bucket")):
                assert use.functions[:1] in {("rate",), ("increase",)}, f"{where}: {use.name}"


@each_board
def test_every_variable_narrows_something(board: Json) -> None:
    """No variable is there for show: each one stands in at least one query."""
    text = " ".join(target["expr"] for _, target in targets(board))
    for name in variables(board):
        assert name == "datasource" or f"${name}" in text, name


@each_board
def test_histogram_graphs_link_to_traces(board: Json) -> None:
    """Graphs of latency ask for exemplars, which are what links them to traces."""
    with_traces = {metric.name for metric in CATALOGUE if metric.exemplars}
    for panel, target in targets(board):
        if panel["type"] not in {"timeseries", "heatmap"} or "histogram_quantile" not in target["expr"]:
            continue
        families = {SERIES[use.name].name for use in uses(filled(target["expr"], board)) if use.name in SERIES}
        if families & with_traces:
            assert target.get("exemplar") is True, panel["title"]


@each_board
def test_boards_link_to_each_other(board: Json) -> None:
    """The link to the other boards keeps the time range and the chosen variables."""
    (link,) = board["links"]
    assert (link["tags"], link["keepTime"], link["includeVars"]) == (["gaugeway"], True, True)
    assert "gaugeway" in board["tags"]


@each_board
def test_values_link_to_boards_that_take_them(board: Json) -> None:
    """A link on a value keeps the time range, and chooses a variable that the other board has."""
    boards = {one["uid"]: one for one in DOCUMENTS.values()}
    options = [p for panel in panels(board) for o in panel["fieldConfig"]["overrides"] for p in o["properties"]]
    for link in (link for one in options if one["id"] == "links" for link in one["value"]):
        match = re.fullmatch(r"/d/([\w-]+)\?(\S+)&var-(\w+)=\$\{__(value\.text|field\.labels\.(\w+))\}", link["url"])
        assert match, link["url"]
        assert match[3] in variables(boards[match[1]]), link["url"]
        assert match[2].startswith("${__url_time_range}&${datasource:queryparam}"), link["url"]


def test_the_overview_leads_on() -> None:
    """A click on a slow provider or route, on a team or on a budget opens the board that explains it."""
    (board,) = [one for one in DOCUMENTS.values() if one["uid"] == "gaugeway-overview"]
    options = [p for panel in panels(board) for o in panel["fieldConfig"]["overrides"] for p in o["properties"]]
    chosen = {re.search(r"&var-(\w+)=\$\{__", p["value"][0]["url"])[1] for p in options if p["id"] == "links"}  # type: ignore[index]
    assert chosen == {"gen_ai_provider", "route", "team", "budget"}


@each_board
def test_annotations_say_what_changed(board: Json) -> None:
    """Deploys, reloads and alerts are marked in every graph, with words."""
    marks = {one["name"]: one for one in board["annotations"]["list"]}
    assert {"Deploys", "Reloads", "Alerts"} <= set(marks)
    assert all(one["titleFormat"] and one["textFormat"] for one in marks.values())


@each_board
def test_only_gateways_are_looked_at(board: Json) -> None:
    """Series that every scraped target has are narrowed to gateways: the collector's memory is not the gateway's."""
    everybodys = {one.name for one in FOREIGN if one.of_targets}
    for panel, target in targets(board):
        if {use.name for use in uses(filled(target["expr"], board))} & everybodys:
            assert "and on (job, instance) gateway_build_info" in target["expr"], panel["title"]

"""What tests ask of a PromQL expression: the families and labels it names, and what stands around a selector."""

from collections.abc import Iterator
from typing import Any

import promql_parser
from msgspec import Struct

from dashboards.promql import FOREIGN, TARGET_LABELS
from gateway.telemetry.metric import Kind
from gateway.telemetry.names import CATALOGUE

SUFFIXES = {Kind.COUNTER: ("",), Kind.GAUGE: ("",), Kind.HISTOGRAM: ("_bucket", "_count", "_sum")}
SERIES = {metric.name + suffix: metric for metric in CATALOGUE for suffix in SUFFIXES[metric.kind]}
"""Name as scraped -> the family it belongs to."""
FOREIGN_SERIES = {one.name: one for one in FOREIGN}


class Use(Struct, frozen=True):
    """One vector selector of an expression, with the functions around it, innermost first."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    parents: tuple[Any, ...]

    @property
    def functions(self) -> tuple[str, ...]:
        """The names of the calls around the selector, innermost first."""
        return tuple(node.func.name for node in self.parents if isinstance(node, promql_parser.Call))

    @property
    def made(self) -> set[str]:
        """Labels that stand on the result without being the series' own: label_replace writes them."""
        calls = [node for node in self.parents if isinstance(node, promql_parser.Call)]
        return {str(node.args[1].val) for node in calls if node.func.name == "label_replace"}

    @property
    def window(self) -> Any:
        """The range in brackets behind the selector, or None."""
        return getattr(self.parents[0], "range", None) if self.parents else None


def uses(expr: str) -> list[Use]:
    """Every selector of an expression. Raises what the parser raises for what is no PromQL."""
    return list(_walk(promql_parser.parse(expr), ()))


def foreign_labels(expr: str) -> set[tuple[str, str]]:
    """(series, label) pairs that neither the catalogue nor the list of foreign series allows; `?` for the series."""
    wrong = set()
    for use in uses(expr):
        labels = allowed_labels(use.name)
        if labels is None:
            wrong.add((use.name, "?"))
            continue
        wrong |= {(use.name, label) for label, _, _ in use.matchers if label not in labels}
        for node in use.parents:
            modifier = getattr(node, "modifier", None)
            grouped = getattr(modifier, "labels", ()) if isinstance(node, promql_parser.AggregateExpr) else ()
            wrong |= {(use.name, label) for label in grouped or () if label not in labels | use.made}
    return wrong


def allowed_labels(name: str) -> set[str] | None:
    """The labels that a series may be selected or grouped by, or None for one that nobody is known to emit."""
    if name in SERIES:
        return {*SERIES[name].labels, *TARGET_LABELS, *(("le",) if name.endswith("_bucket") else ())}
    if name in FOREIGN_SERIES:
        return {*FOREIGN_SERIES[name].labels, *TARGET_LABELS}
    return None


def _walk(node: Any, parents: tuple[Any, ...]) -> Iterator[Use]:
    if isinstance(node, promql_parser.VectorSelector):
        matchers = tuple((m.name, str(m.op), m.value) for m in node.matchers.matchers)
        yield Use(str(node.name), matchers, parents)
        return
    for attribute in ("expr", "lhs", "rhs", "vector_selector"):
        child = getattr(node, attribute, None)
        if child is not None:
            yield from _walk(child, (node, *parents))
    args = getattr(node, "args", None)
    for child in args if isinstance(args, list) else []:
        yield from _walk(child, (node, *parents))

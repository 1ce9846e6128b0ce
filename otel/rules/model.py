"""What a rule is, whichever system evaluates it.

Texts of alerts may hold `[[label]]` for a label's value, and `[[value:count]]`, `[[value:usd]]`, `[[value:percent]]` or
`[[value:duration]]` for the expression's; `[[query:spent]]` and `[[query:limit]]` ask for the US dollars of the budget that the
alert is about.
Each renderer writes them in its own template language.
"""

import re
from collections.abc import Callable
from enum import StrEnum

from msgspec import Struct

from dashboards.promql import Foreign

SERVICE = "gaugeway"
PLACEHOLDER = re.compile(r"\[\[(\w+)(?::(\w+))?\]\]")


class Severity(StrEnum):
    """How soon somebody must look: now, in working hours, or when there is time."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Recording(Struct, frozen=True, kw_only=True):
    """A recorded series, named level:metric:operation as Prometheus asks, with the labels that it keeps."""

    name: str
    labels: tuple[str, ...]
    expr: str

    @property
    def series(self) -> Foreign:
        """The recorded series, to build expressions from."""
        return Foreign(self.name, self.labels, of_targets=False)


class Alert(Struct, frozen=True, kw_only=True):
    """One alert rule.

    `hold` is how long the expression must be true before the alert fires; `dashboard` is the uid of the board to open.
    Several rules may share a name and a runbook when they differ in their windows: `window` is then a label.
    """

    name: str
    expr: str
    hold: str
    severity: Severity
    summary: str
    description: str
    dashboard: str
    window: str = ""


class Group(Struct, frozen=True, kw_only=True):
    """Rules that are evaluated one after the other."""

    name: str
    rules: tuple[Recording | Alert, ...]
    interval: str = "30s"


class Templates(Struct, frozen=True):
    """How one system writes a label's value, the expression's value in a form, and a budget's dollars."""

    label: Callable[[str], str]
    value: Callable[[str], str]
    query: Callable[[str], str]

    def fill(self, text: str) -> str:
        """The text with its placeholders in this system's template language."""
        return PLACEHOLDER.sub(self._one, text)

    def _one(self, match: re.Match[str]) -> str:
        name, form = match[1], match[2]
        if name == "value":
            return self.value(form)
        return self.query(form) if name == "query" else self.label(name)

"""The phases of the overhead histogram: one series holds the whole, the others its parts."""

from dashboards.promql import is_, is_not

TOTAL = is_("phase", "total")
PARTS = is_not("phase", "total")

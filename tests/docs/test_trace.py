"""docs/trace.md is what a real request leaves behind."""

from tests import trace_page


def test_the_recorded_trace_is_current() -> None:
    """The page is what `python -m tests.trace_page` records: spans, attributes, cost and log line."""
    assert trace_page.PAGE.read_text(encoding="utf-8") == trace_page.page()

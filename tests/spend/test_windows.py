"""Windows begin and end at local midnight, everywhere and always."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.money import Window
from gateway.spend.windows import midnight_ns, span_at

HOUR_NS = 3600 * 10**9
ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "Pacific/Apia",
]


def ns(text: str) -> int:
    """Nanoseconds of an ISO instant."""
    return int(datetime.fromisoformat(text).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("window", "zone", "at", "name", "hours"),
    [
        (Window.DAY, "Europe/Berlin", "2026-03-29T12:00:00+00:00", "day/2026-03-29/Europe/Berlin", 23),
        (Window.DAY, "Europe/Berlin", "2026-10-25T12:00:00+00:00", "day/2026-10-25/Europe/Berlin", 25),
        (Window.DAY, "Europe/Berlin", "2026-10-24T22:00:00+00:00", "day/2026-10-25/Europe/Berlin", 25),
        (Window.DAY, "Europe/Berlin", "2026-10-24T21:59:59+00:00", "day/2026-10-24/Europe/Berlin", 24),
        (Window.DAY, "Pacific/Kiritimati", "2026-01-01T10:00:00+00:00", "day/2026-01-02/Pacific/Kiritimati", 24),
        (Window.DAY, "Pacific/Pago_Pago", "2026-01-01T10:59:59+00:00", "day/2025-12-31/Pacific/Pago_Pago", 24),
        (Window.DAY, "Africa/Cairo", "2026-04-24T12:00:00+00:00", "day/2026-04-24/Africa/Cairo", 23),
        (Window.DAY, "America/Sao_Paulo", "2018-11-04T12:00:00+00:00", "day/2018-11-04/America/Sao_Paulo", 23),
        (Window.DAY, "America/Sao_Paulo", "2018-02-17T12:00:00+00:00", "day/2018-02-17/America/Sao_Paulo", 25),
        (Window.WEEK, "UTC", "2027-01-03T23:59:59+00:00", "week/2026-W53/UTC", 168),
        (Window.WEEK, "Europe/Berlin", "2026-03-29T12:00:00+00:00", "week/2026-W13/Europe/Berlin", 167),
        (Window.MONTH, "UTC", "2028-02-29T23:59:59+00:00", "month/2028-02/UTC", 29 * 24),
        (Window.MONTH, "UTC", "2026-02-28T00:00:00+00:00", "month/2026-02/UTC", 28 * 24),
        (Window.MONTH, "UTC", "2026-12-31T23:59:59+00:00", "month/2026-12/UTC", 31 * 24),
        (Window.MONTH, "Europe/Berlin", "2026-10-31T23:00:00+00:00", "month/2026-11/Europe/Berlin", 30 * 24),
        (Window.MONTH, "Europe/Berlin", "2026-10-15T00:00:00+00:00", "month/2026-10/Europe/Berlin", 31 * 24 + 1),
        (Window.HOUR, "Asia/Kolkata", "2026-05-05T00:10:00+00:00", "hour/2026-05-05T05+0530/Asia/Kolkata", 1),
        (Window.HOUR, "Europe/Berlin", "2026-10-25T00:30:00+00:00", "hour/2026-10-25T02+0200/Europe/Berlin", 1),
        (Window.HOUR, "Europe/Berlin", "2026-10-25T01:30:00+00:00", "hour/2026-10-25T02+0100/Europe/Berlin", 1),
        (Window.HOUR, "Australia/Lord_Howe", "2026-04-04T15:10:00+00:00", "hour/2026-04-05T01+1030/Australia/Lord_Howe", 0.5),
    ],
)  # fmt: skip
def test_a_window_has_its_local_name_and_its_true_length(
    window: Window, zone: str, at: str, name: str, hours: float
) -> None:
    """Daylight saving, month ends, leap days and zones from +14 to -11 give the right name and length."""
    span = span_at(window, zone, ns(at))
    assert span.window_id == name
    assert span.start_ns <= ns(at) < span.end_ns
    assert span.end_ns - span.start_ns == hours * HOUR_NS


def test_a_day_that_the_calendar_skipped_has_no_length() -> None:
    """Samoa had no 30 December 2011: the 29th ends where the 31st begins."""
    before = span_at(Window.DAY, "Pacific/Apia", ns("2011-12-30T09:59:59+00:00"))
    after = span_at(Window.DAY, "Pacific/Apia", before.end_ns)
    assert (before.window_id, after.window_id) == ("day/2011-12-29/Pacific/Apia", "day/2011-12-31/Pacific/Apia")


def test_clocks_that_fall_back_over_midnight_do_not_reopen_yesterday() -> None:
    """Newfoundland set its clocks back at 00:01: the minute after midnight belongs to the new day, and so does what follows."""
    zone = ZoneInfo("America/St_Johns")
    midnight = midnight_ns("America/St_Johns", date(2010, 11, 7))
    later = midnight + 30 * 60 * 10**9
    assert datetime.fromtimestamp(later // 10**9, zone).date() == date(2010, 11, 6)
    assert span_at(Window.DAY, "America/St_Johns", later).window_id == "day/2010-11-07/America/St_Johns"


@settings(max_examples=400, deadline=None)
@given(
    window=st.sampled_from(list(Window)),
    zone=st.sampled_from(ZONES),
    at=st.datetimes(min_value=datetime(2005, 1, 1), max_value=datetime(2037, 12, 31)),  # noqa: DTZ001
)
def test_windows_tile_time(window: Window, zone: str, at: datetime) -> None:
    """Each instant lies in exactly one window: its neighbours begin and end where it ends and begins."""
    at_ns = int(at.replace(tzinfo=UTC).timestamp()) * 10**9
    span = span_at(window, zone, at_ns)
    assert span.start_ns <= at_ns < span.end_ns
    assert span_at(window, zone, span.start_ns) == span
    if window is not Window.NONE:
        assert span_at(window, zone, span.end_ns - 1) == span
        assert span_at(window, zone, span.end_ns).start_ns == span.end_ns
        assert span_at(window, zone, span.start_ns - 1).end_ns == span.start_ns
        assert span.end_ns - span.start_ns <= timedelta(days=32).total_seconds() * 1e9

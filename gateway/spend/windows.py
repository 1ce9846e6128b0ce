"""Calendar windows of budgets, in any IANA time zone.

A window is a half-open span of instants with a name, such as `month/2026-11/Europe/Berlin`. It begins and ends at
local midnight (or the local hour), whatever daylight saving does, so days have 23, 24 or 25 hours. Nothing resets:
a new window is a new name. Pure; no clock is read here.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from gateway.config.money import Window

_NS = 1_000_000_000
FOREVER_NS = 2**62
"""The end of the window that never ends, in nanoseconds since the epoch (the year 2116)."""


class Span(Struct, frozen=True):
    """One window: its name, and the instants `start_ns <= t < end_ns`, nanoseconds since the epoch."""

    window_id: str
    start_ns: int
    end_ns: int


def span_at(window: Window, zone: str, at_ns: int) -> Span:
    """The window of a kind and zone that holds an instant."""
    if window is Window.NONE:
        return Span("none", 0, FOREVER_NS)
    if window is Window.HOUR:
        return _hour(zone, at_ns)
    start, name = _calendar_start(window, _local_day(zone, at_ns))
    return Span(
        f"{window.value}/{name}/{zone}",
        midnight_ns(zone, start),
        midnight_ns(zone, _next_start(window, start)),
    )


def midnight_ns(zone: str, day: date) -> int:
    """The first instant of a local day.

    Where midnight does not exist (a spring-forward at 00:00), the day begins at the jump; where it comes twice, at
    the first.
    """
    moment = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone))
    return int(moment.timestamp()) * _NS


def _local_day(zone: str, at_ns: int) -> date:
    day = datetime.fromtimestamp(at_ns // _NS, ZoneInfo(zone)).date()
    # Clocks that fell back over midnight show yesterday's date again; a day that has begun stays begun.
    following = day + timedelta(days=1)
    return following if midnight_ns(zone, following) <= at_ns else day


def _calendar_start(window: Window, day: date) -> tuple[date, str]:
    if window is Window.DAY:
        return day, day.isoformat()
    if window is Window.WEEK:
        year, week, weekday = day.isocalendar()
        return day - timedelta(days=weekday - 1), f"{year}-W{week:02}"
    return day.replace(day=1), f"{day.year:04}-{day.month:02}"


def _next_start(window: Window, start: date) -> date:
    if window is Window.DAY:
        return start + timedelta(days=1)
    if window is Window.WEEK:
        return start + timedelta(days=7)
    return (start + timedelta(days=32)).replace(day=1)


def _hour(zone: str, at_ns: int) -> Span:
    """A local hour. One that daylight saving repeats is two windows, told apart by their offsets from UTC."""
    info = ZoneInfo(zone)
    second = at_ns // _NS
    name = _hour_name(info, second)
    moment = datetime.fromtimestamp(second, info)
    start = second - moment.minute * 60 - moment.second
    if _hour_name(info, start) != name:
        start = _first_second(info, name, start, second)
    end = second - moment.minute * 60 - moment.second + 3600
    if _hour_name(info, end - 1) != name:
        end = _end_second(info, name, second, end - 1)
    return Span(f"hour/{name}/{zone}", start * _NS, end * _NS)


def _hour_name(info: ZoneInfo, second: int) -> str:
    return datetime.fromtimestamp(second, info).strftime("%Y-%m-%dT%H%z")


def _first_second(info: ZoneInfo, name: str, outside: int, inside: int) -> int:
    """Bisect to the first second of the named hour; `outside` is before it."""
    while inside - outside > 1:
        middle = (inside + outside) // 2
        if _hour_name(info, middle) == name:
            inside = middle
        else:
            outside = middle
    return inside


def _end_second(info: ZoneInfo, name: str, inside: int, outside: int) -> int:
    """Bisect to the first second after the named hour; `outside` is after it."""
    while outside - inside > 1:
        middle = (inside + outside) // 2
        if _hour_name(info, middle) == name:
            inside = middle
        else:
            outside = middle
    return outside


def utc_iso(at_ns: int) -> str:
    """An instant as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(at_ns // _NS, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

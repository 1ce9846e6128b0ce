"""The configuration in use: checked, resolved, immutable."""

from pathlib import Path

from msgspec import Struct

from gateway.config.money import Money
from gateway.config.schema import LimitsFile, TelemetryFile
from gateway.types.route import Route


class Settings(Struct, frozen=True, kw_only=True):
    """What one configuration file means."""

    routes: tuple[Route, ...]
    telemetry: TelemetryFile = TelemetryFile()
    limits: LimitsFile = LimitsFile()
    money: Money = Money()
    key_files: tuple[Path, ...] = ()
    """Files that keys were read from."""

    def by_name(self) -> dict[str, Route]:
        """The routes, by name, in the file's order."""
        return {route.name: route for route in self.routes}

"""From a YAML file to Settings: every refusal names the path of the wrong field and the remedy.

The texts of refusals that the MLflow AI Gateway had are kept word for word; what it silently ignored (unknown keys) is
refused here. Which providers exist, and what each one's `config` holds, comes in as an argument.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from gateway.config.document import read_document
from gateway.config.errors import ConfigError
from gateway.config.money import Money
from gateway.config.schema import ConfigFile, ModelFile, OnCallerLeft, RouteFile, TargetFile, TrafficFile
from gateway.config.secrets import resolve_secret
from gateway.config.settings import Settings
from gateway.config.traffic import traffic_route
from gateway.types.address import is_http_address
from gateway.types.route import Limit, Route, RouteType, Target, Timeouts
from gateway.types.secret import Secret
from gateway.types.usage import service_tier

_NAME = re.compile(r"[\w\-\.]+")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `([^`]*)`")
_MISSING_FIELD = re.compile(r"Object missing required field `([^`]*)`")
_AT = re.compile(r" - at (`key` in )?`\$([^`]*)`$")
_ADDRESSES = ("_base", "_url", "_endpoint")
"""How the providers' fields for an address end."""

_T = TypeVar("_T")


class ProviderConfig(Protocol):
    """The part of a provider's description that checking a configuration needs."""

    @property
    def name(self) -> str: ...
    @property
    def config(self) -> type[Struct]: ...
    @property
    def config_required(self) -> bool: ...
    @property
    def check(self) -> Callable[[Any, str, RouteType], None] | None: ...
    @property
    def from_environment(self) -> Callable[[Mapping[str, Any], Mapping[str, str]], Mapping[str, Any]] | None: ...


ProviderLookup = Callable[[str], ProviderConfig | None]
"""A provider by the name in the file, whatever its case and hyphens; None for one that does not exist."""


def load_file(path: Path, providers: ProviderLookup, environment: Mapping[str, str]) -> Settings:
    """Read, check and resolve one file.

    Raises:
        ConfigError: the file is missing, is no YAML, or says something that cannot be.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise ConfigError("", f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("", f"{path} cannot be read: {error}") from None
    return load_text(text, providers, environment, source=path)


def load_text(
    text: str, providers: ProviderLookup, environment: Mapping[str, str], source: Path = Path("configuration")
) -> Settings:
    """Check and resolve the text of a file, whose relative paths begin at its folder; raises ConfigError."""
    document = read_document(text, source)
    loading = _Loading(providers, environment, source.parent)
    try:
        return loading.settings(document)
    except ConfigError as error:
        error.key_files = tuple(loading.key_files)
        raise


class _Loading:
    def __init__(self, providers: ProviderLookup, environment: Mapping[str, str], folder: Path) -> None:
        self._providers = providers
        self._environment = environment
        self._folder = folder
        self.key_files: list[Path] = []

    def settings(self, document: dict[str, Any]) -> Settings:
        file = self._convert(document, ConfigFile, "")
        if file.routes is UNSET and file.endpoints is UNSET:
            raise ConfigError("routes", "the file has no 'routes' and no 'endpoints'; give at least one list")
        entries = [
            (section, f"{section}[{index}]", item)
            for section, items in (("routes", file.routes), ("endpoints", file.endpoints))
            if not isinstance(items, UnsetType)
            for index, item in enumerate(items)
        ]
        routes = _each(
            lambda section, path, item: self._route(item, path, original_shape=section == "routes"),
            [(section, path, item) for section, path, item in entries if not _is_traffic(section, item)],
        )
        endpoints = {route.name: route for route in routes if not route.original_shape}
        routes += _each(
            lambda _, path, item: traffic_route(self._convert(item, TrafficFile, path), endpoints, path),
            [(section, path, item) for section, path, item in entries if _is_traffic(section, item)],
        )
        names = [route.name for route in routes]
        if len(set(names)) != len(names):
            raise ConfigError(
                "routes" if file.routes is not UNSET else "endpoints",
                "Duplicate names found in route configurations. Please remove the duplicate route name from the "
                "configuration to ensure that route endpoints are created properly.",
            )
        return Settings(
            routes=tuple(routes),
            telemetry=file.telemetry,
            limits=file.limits,
            money=_money(file, self._folder),
            key_files=tuple(dict.fromkeys(self.key_files)),
        )

    def _route(self, item: dict[str, Any], path: str, *, original_shape: bool) -> Route:
        file = self._convert(item, RouteFile, path)
        if not _NAME.fullmatch(file.name):
            raise ConfigError(
                f"{path}.name",
                "The route name provided contains disallowed characters for a url endpoint. "
                f"'{file.name}' is invalid. Names cannot contain spaces or any non alphanumeric characters other than "
                "hyphen and underscore.",
            )
        route_type = self._route_type(file, path, original_shape=original_shape)
        if isinstance(file.model, UnsetType) == isinstance(file.targets, UnsetType):
            raise ConfigError(f"{path}.model", "give either 'model' or 'targets'")
        if not isinstance(file.model, UnsetType):
            model = self._convert(file.model, ModelFile, f"{path}.model")
            targets = [self._target(model, 1.0, 0, route_type, file.timeouts, f"{path}.model")]
        else:
            assert not isinstance(file.targets, UnsetType)

            def made(index: int, entry: dict[str, Any]) -> Target:
                target_path = f"{path}.targets[{index}]"
                target = self._convert(entry, TargetFile, target_path)
                return self._target(target, target.weight, target.tier, route_type, file.timeouts, target_path)

            targets = _each(made, enumerate(file.targets))
        if not targets:
            raise ConfigError(f"{path}.targets", "the list is empty; give at least one target")
        if file.retries < 0:
            raise ConfigError(f"{path}.retries", f"{file.retries} is below 0")
        return Route(
            name=file.name,
            route_type=route_type,
            targets=tuple(targets),
            original_shape=original_shape,
            limits=_limits(file),
            retries=file.retries,
            content=file.content,
        )

    def _route_type(self, file: RouteFile, path: str, *, original_shape: bool) -> RouteType:
        given = {"route_type": file.route_type, "endpoint_type": file.endpoint_type}
        preferred = "route_type" if original_shape else "endpoint_type"
        values = {key: value for key, value in given.items() if not isinstance(value, UnsetType)}
        if len(values) != 1:
            remedy = "is required" if not values else "stands beside its other spelling; keep one"
            raise ConfigError(f"{path}.{preferred}", remedy)
        key, value = next(iter(values.items()))
        try:
            return RouteType(value)
        except ValueError:
            allowed = ", ".join(RouteType)
            raise ConfigError(
                f"{path}.{key}", f"The route_type '{value}' is not supported. Use one of: {allowed}"
            ) from None

    def _target(
        self,
        model: ModelFile | TargetFile,
        weight: float,
        tier: int,
        route_type: RouteType,
        timeouts: Timeouts | None,
        path: str,
    ) -> Target:
        if model.provider is None:
            raise ConfigError(f"{path}.provider", "A provider must be provided for each gateway route.")
        provider = self._providers(model.provider)
        if provider is None:
            raise ConfigError(f"{path}.provider", f"The provider '{model.provider}' is not supported.")
        if model.config is None and provider.config_required:
            raise ConfigError(
                f"{path}.config",
                "A config must be supplied when setting a provider. The provider entry for "
                f"{model.provider} is incorrect.",
            )
        written: Mapping[str, Any] = model.config or {}
        if provider.from_environment is not None:
            written = provider.from_environment(written, self._environment)
        config = self._convert(written, provider.config, f"{path}.config")
        for field in provider.config.__struct_fields__:
            # One that is not given means the provider's own.
            if field.endswith(_ADDRESSES) and (address := getattr(config, field)) and not is_http_address(address):
                raise ConfigError(
                    f"{path}.config.{field}",
                    "is no address; give it with http:// or https://, such as http://localhost:8000/v1",
                )
        name = model.name or ""
        if provider.check is not None:
            try:
                provider.check(config, name, route_type)
            except ValueError as error:
                raise ConfigError(f"{path}.name", str(error)) from None
        if not 0 <= weight < math.inf:
            raise ConfigError(f"{path}.weight", f"{weight} is below 0" if weight < 0 else f"{weight} is no number")
        return Target(
            provider=provider.name,
            model=name,
            config=config,
            weight=weight,
            tier=tier,
            timeouts=model.timeouts or timeouts or Timeouts(),
            propagate_trace=model.propagate_trace,
            drain_s=model.drain_s if model.on_caller_left is OnCallerLeft.DRAIN else None,
        )

    def _convert(self, value: Any, type_: type[_T], path: str) -> _T:
        try:
            return msgspec.convert(value, type_, dec_hook=self._decode)
        except msgspec.ValidationError as error:
            raise _explain(str(error), type_, path) from None

    def _decode(self, type_: type, value: Any) -> Any:
        if type_ is Secret:
            return resolve_secret(value, self._environment, self.key_files.append)
        raise NotImplementedError(f"no decoder for {type_}")


def _each(make: Callable[..., _T], entries: Iterable[tuple[Any, ...]]) -> list[_T]:
    """What `make` gives for each; raises one ConfigError of all that it raised, so that they can be mended together."""
    made: list[_T] = []
    errors: list[ConfigError] = []
    for entry in entries:
        try:
            made.append(make(*entry))
        except ConfigError as error:
            errors.append(error)
    if errors:
        raise ConfigError.joined(errors)
    return made


def _is_traffic(section: str, item: dict[str, Any]) -> bool:
    return section == "routes" and "destinations" in item


def _limits(file: RouteFile) -> tuple[Limit, ...]:
    if file.limit is None:
        return ()
    written = file.limit if isinstance(file.limit, list) else [file.limit]
    return tuple(
        Limit(
            calls=limit.calls,
            period_s=limit.period_s,
            period=limit.renewal_period,
            key=limit.key,
            per_route=limit.key == "route",
        )
        for limit in written
    )


def _money(file: ConfigFile, folder: Path) -> Money:
    """The sections about money, with the checks that need more than one entry."""
    seen: set[str] = set()
    for index, budget in enumerate(file.budgets):
        if budget.name in seen:
            raise ConfigError(f"budgets[{index}].name", f"'{budget.name}' stands there twice")
        seen.add(budget.name)
    priced: set[tuple[str | None, str, str]] = set()
    for index, price in enumerate(file.prices):
        what = (price.provider, price.model, service_tier(price.service_tier))
        if what in priced:
            raise ConfigError(f"prices[{index}].model", f"'{price.model}' has two prices of one service tier")
        priced.add(what)
    if file.ledger.path is not None and file.ledger.postgres is not None:
        raise ConfigError("ledger", "give either 'path' or 'postgres'")
    try:
        prices_file = None if file.prices_file is None else folder / Path(file.prices_file).expanduser()
    except RuntimeError as error:
        raise ConfigError("prices_file", str(error)) from None
    return Money(
        prices=file.prices,
        prices_file=prices_file,
        budgets=file.budgets,
        keys=file.keys,
        ledger=file.ledger,
        admin=file.admin,
    )


def _explain(text: str, type_: type, path: str) -> ConfigError:
    """Turn msgspec's words into a path of the file and a remedy."""
    at = _AT.search(text)
    inner = at.group(2) if at else ""
    message = text[: at.start()] if at else text
    if message == "Invalid decimal string":
        message = "must be a number, such as 12.50"
    full = f"{path}{inner}" if path else inner.removeprefix(".")
    if at and at.group(1):
        return ConfigError(full, "the name of a field is no text")
    if unknown := _UNKNOWN_FIELD.match(message):
        name = unknown.group(1)
        message = "unknown field"
        if not inner and issubclass(type_, Struct):
            message += f"; allowed here: {', '.join(type_.__struct_encode_fields__)}"
        return ConfigError(_join(full, name), message)
    if missing := _MISSING_FIELD.match(message):
        return ConfigError(_join(full, missing.group(1)), "is required")
    # A check in a Struct's own __post_init__ begins with the field that it is about.
    field = message.split(" ", 1)[0].rstrip(";:,")
    if issubclass(type_, Struct) and not inner and field in type_.__struct_encode_fields__:
        return ConfigError(_join(full, field), message)
    return ConfigError(full, message)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name

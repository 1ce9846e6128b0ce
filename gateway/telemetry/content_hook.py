"""Captured content for a function of the operator's own: called on a thread, so that it can neither delay nor break a request."""

import importlib
import logging
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from gateway.config.errors import ConfigError
from gateway.telemetry.queue import BackgroundQueue
from gateway.types.records import RequestRecord
from gateway.types.route import CaptureTo

_LOG = logging.getLogger(__name__)


class CapturedContent(Struct, frozen=True, kw_only=True):
    """One attempt's content and where it belongs. The messages are JSON texts in the GenAI conventions' form."""

    request_id: str
    trace_id: str
    span_id: str
    route: str
    team: str
    key_id: str | None
    provider: str
    model: str
    input_messages: str | None
    output_messages: str | None
    cut: bool


Hook = Callable[[CapturedContent], None]


def load_hook(name: str) -> Hook:
    """The function that `package.module:function` names. Raises ConfigError."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError("telemetry.content_hook", f"'{name}' cannot be imported: {error}") from None
    if not callable(found):
        raise ConfigError("telemetry.content_hook", f"'{name}' is no function")
    hook: Hook = found
    return hook


class ContentHookSink:
    """Hands the content of routes that capture `to: hook` over, one attempt at a time.

    Args:
        on_error: told of each call that raised.
        on_drop: told how many records came too fast for the hook, or too late.
    """

    name = "content_hook"

    def __init__(self, hook: Hook, on_error: Callable[[], None], on_drop: Callable[[int], None]) -> None:
        self._hook = hook
        self._on_error = on_error
        self.queue: BackgroundQueue[RequestRecord] = BackgroundQueue(
            "content-hook", self._call, lambda _, records: on_drop(len(records))
        )

    def record(self, record: RequestRecord) -> None:
        """Queue a record that has something for the hook."""
        if any(a.content is not None and a.content.to is CaptureTo.HOOK for a in record.attempts):
            self.queue.put(record)

    def _call(self, records: Sequence[RequestRecord]) -> Iterator[int]:
        for record in records:
            for told in captured(record):
                try:
                    self._hook(told)
                except Exception:  # noqa: BLE001 - the hook is the operator's, the gateway goes on
                    _LOG.warning("the content hook failed", exc_info=True)
                    self._on_error()
            yield 1

    def close(self, timeout_s: float) -> None:
        """Hand over what is queued, for at most `timeout_s` seconds."""
        self.queue.close(timeout_s)


def captured(record: RequestRecord) -> list[CapturedContent]:
    """What a record holds for the hook."""
    return [
        CapturedContent(
            request_id=record.request_id,
            trace_id=record.trace.trace_id_hex,
            span_id=f"{attempt.span_id:016x}",
            route=record.route,
            team=record.caller.team,
            key_id=record.caller.key_id,
            provider=attempt.provider,
            model=attempt.request_model,
            input_messages=attempt.content.input_messages,
            output_messages=attempt.content.output_messages,
            cut=attempt.content.cut,
        )
        for attempt in record.attempts
        if attempt.content is not None and attempt.content.to is CaptureTo.HOOK
    ]

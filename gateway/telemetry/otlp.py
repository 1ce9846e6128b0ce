"""OTLP spans of finished records, written as protobuf bytes without an object for every attribute.

The SDK builds a protobuf object for each attribute: some 150 us of CPU for a request's three spans, as much as a bare
proxied request costs. Written directly from the tables of `gateway.telemetry.attributes` they take about a tenth. The
bytes decode to the message that the SDK makes of the same spans, which tests compare; sending is the SDK's own.

Source: https://github.com/open-telemetry/opentelemetry-proto/blob/v1.9.0/opentelemetry/proto/trace/v1/trace.proto
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import INVALID_SPAN_CONTEXT, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from gateway.config.schema import Semconv
from gateway.telemetry import attributes
from gateway.telemetry.attributes import (
    Attribute,
    AttributeType,
    Told,
    Varies,
    attempt_told,
    of_generation,
    server_told,
)
from gateway.telemetry.exporters import http_options
from gateway.telemetry.spans import SCOPE, Export, SpanMaker, http_failed, server_failed
from gateway.telemetry.transport import BoundedTransport, rejected
from gateway.telemetry.variables import Signal
from gateway.types.records import RequestRecord

_KEPT_GROUPS = 1024
_KEPT_NAMES = 1024
_DOUBLE = struct.Struct("<d").pack
_TIMES = struct.Struct("<cQcQ").pack
_SHORT_VARINTS = [bytes((n,)) if n < 128 else bytes((n & 127 | 128, n >> 7)) for n in range(16_384)]

# Keys of the wire: (field number << 3) | wire type, as bytes; where a size is fixed, it follows.
_SPAN_TRACE_ID, _SPAN_ID, _SPAN_PARENT, _SPAN_NAME, _SPAN_KIND = b"\x0a\x10", b"\x12\x08", b"\x22\x08", b"\x2a", b"\x30"
_SPAN_START, _SPAN_END, _SPAN_ATTRIBUTE, _SPAN_LINK, _SPAN_STATUS = b"\x39", b"\x41", b"\x4a", b"\x6a", b"\x7a"
_FLAGS, _REMOTE_FLAGS = b"\x85\x01\x00\x01\x00\x00", b"\x85\x01\x00\x03\x00\x00"
_REMOTE_LINK_FLAGS = b"\x35\x00\x03\x00\x00"
_FIELD_1, _FIELD_2, _STATUS_CODE = b"\x0a", b"\x12", b"\x18"
_STRING, _BOOL, _INT, _FLOAT, _ARRAY = b"\x0a", b"\x10", b"\x18", b"\x21", b"\x2a"


def varint(number: int) -> bytes:
    """A protobuf varint; a negative int64 takes ten bytes, as in every protobuf."""
    if 0 <= number < len(_SHORT_VARINTS):
        return _SHORT_VARINTS[number]
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _sized(key: bytes, data: bytes) -> bytes:
    return key + varint(len(data)) + data


def _any_value(value: AttributeValue) -> bytes:
    if isinstance(value, str):
        return _sized(_STRING, value.encode("utf-8", "replace"))
    if isinstance(value, bool):
        return _BOOL + varint(value)
    if isinstance(value, int):
        return _INT + varint(value)
    if isinstance(value, float):
        return _FLOAT + _DOUBLE(value)
    if isinstance(value, Sequence):
        return _sized(_ARRAY, b"".join([_sized(_FIELD_1, _any_value(item)) for item in value]))
    raise TypeError(f"{type(value).__name__} is no attribute value")


def encode_attribute(name: str, value: AttributeValue) -> bytes:
    """One attribute of a span."""
    body = _sized(_FIELD_1, name.encode()) + _sized(_FIELD_2, _any_value(value))
    return _sized(_SPAN_ATTRIBUTE, body)


def _attribute_encoder(attribute: Attribute) -> Callable[[Any], bytes]:
    """A function that encodes this attribute's raw values (none of them None)."""
    encode, convert = _value_encoder(attribute), attribute.convert
    if convert is None:
        return encode

    def encode_converted(raw: Any) -> bytes:
        value = convert(raw)
        return b"" if value is None else encode(value)

    return encode_converted


def _value_encoder(attribute: Attribute) -> Callable[[Any], bytes]:
    """A function that encodes this attribute's values, with all that is the same each time worked out before."""
    name = attribute.name
    key = _sized(_FIELD_1, name.encode())

    def begin(value_bytes: int) -> bytes:
        value = _FIELD_2 + varint(value_bytes)
        return _SPAN_ATTRIBUTE + varint(len(key) + len(value) + value_bytes) + key + value

    match attribute.type:
        case AttributeType.INT:
            by_size = [begin(1 + size) + _INT for size in range(11)]

            def encode_int(value: int) -> bytes:
                data = varint(value)
                return by_size[len(data)] + data

            return encode_int
        case AttributeType.DOUBLE:
            double = begin(9) + _FLOAT
            return lambda value: double + _DOUBLE(value)
        case AttributeType.STRING:
            short = [begin(2 + size) + _STRING + varint(size) for size in range(100)]

            def encode_string(value: str) -> bytes:
                data = value.encode("utf-8", "replace")
                return short[len(data)] + data if len(data) < 100 else encode_attribute(name, value)

            return encode_string
        case _:
            return lambda value: encode_attribute(name, value)


class _Table:
    """One span's attributes: those that hardly vary are encoded together and kept, the others one by one."""

    def __init__(self, table: tuple[Attribute, ...]) -> None:
        self._rare = [a for a in table if a.varies is Varies.RARELY]
        each = [a for a in table if a.varies is Varies.ALWAYS]
        self._read_rare = attrgetter(*(a.source for a in self._rare))
        # A getter of one name gives no tuple.
        self._read_each = attrgetter(*(a.source for a in each), "usage")
        self._encoders = [_attribute_encoder(a) for a in each]
        self._kept: dict[tuple[Any, ...], bytes] = {}

    def encode(self, told: Told, parts: list[bytes]) -> None:
        """Add the attributes of a span to its parts."""
        rare = self._read_rare(told)
        kept = self._kept.get(rare)
        if kept is None:
            if len(self._kept) >= _KEPT_GROUPS:
                self._kept.clear()
            kept = self._kept[rare] = b"".join(
                encode_attribute(attribute.name, value)
                for attribute, raw in zip(self._rare, rare, strict=True)
                if (value := attribute.value(raw)) is not None
            )
        parts.append(kept)
        for encode, raw in zip(self._encoders, self._read_each(told), strict=False):
            if raw is not None:
                parts.append(encode(raw))


class RecordEncoder:
    """Records to the bytes of one ExportTraceServiceRequest. For one thread: it keeps what repeats."""

    def __init__(self, maker: SpanMaker, semconv: Semconv) -> None:
        self._server = _Table(of_generation(attributes.SERVER, semconv))
        self._attempt = _Table(of_generation(attributes.ATTEMPT, semconv))
        self._http = _Table(of_generation(attributes.HTTP, semconv))
        self._names: dict[tuple[str, str | None], bytes] = {}
        self._resource, self._scope = _envelope(maker)

    def encode(self, records: Sequence[RequestRecord]) -> bytes:
        """One batch."""
        spans: list[bytes] = []
        for record in records:
            self._add(record, spans)
        return _sized(_FIELD_1, self._resource + _sized(_FIELD_2, self._scope + b"".join(spans)))

    def _add(self, record: RequestRecord, spans: list[bytes]) -> None:
        trace = record.trace
        trace_id = _SPAN_TRACE_ID + trace.trace_id.to_bytes(16, "big")
        server_id = trace.span_id.to_bytes(8, "big")
        parts = [trace_id, _SPAN_ID, server_id]
        if trace.parent_span_id:
            parts += (_SPAN_PARENT, trace.parent_span_id.to_bytes(8, "big"))
        parts += (self._name(record.method, record.path_template), _KIND_SERVER)
        parts.append(_TIMES(_SPAN_START, record.start_ns, _SPAN_END, record.end_ns))
        self._server.encode(server_told(record), parts)
        if trace.link_trace_id and trace.link_span_id:
            link = (_SPAN_TRACE_ID, trace.link_trace_id.to_bytes(16, "big"), _SPAN_ID,
                    trace.link_span_id.to_bytes(8, "big"), _REMOTE_LINK_FLAGS)  # fmt: skip
            parts.append(_sized(_SPAN_LINK, b"".join(link)))
        parts += (
            _ERROR if server_failed(record) else _UNSET,
            _REMOTE_FLAGS if trace.parent_span_id else _FLAGS,
        )
        spans.append(_sized(_FIELD_2, b"".join(parts)))
        for attempt in record.attempts:
            told = attempt_told(record, attempt)
            attempt_id = attempt.span_id.to_bytes(8, "big")
            parts = [trace_id, _SPAN_ID, attempt_id, _SPAN_PARENT, server_id]
            parts += (self._name(attempt.operation.gen_ai_name, attempt.request_model), _KIND_CLIENT)
            parts.append(_TIMES(_SPAN_START, attempt.start_ns, _SPAN_END, attempt.end_ns))
            self._attempt.encode(told, parts)
            parts += (_UNSET if attempt.error_type is None else _ERROR, _FLAGS)
            spans.append(_sized(_FIELD_2, b"".join(parts)))
            http = attempt.http
            if http is not None:
                parts = [trace_id, _SPAN_ID, http.span_id.to_bytes(8, "big"), _SPAN_PARENT, attempt_id]
                parts += (self._name(http.method, None), _KIND_CLIENT)
                parts.append(_TIMES(_SPAN_START, http.start_ns, _SPAN_END, http.end_ns))
                self._http.encode(told, parts)
                parts += (_ERROR if http_failed(http) else _UNSET, _FLAGS)
                spans.append(_sized(_FIELD_2, b"".join(parts)))

    def _name(self, first: str, second: str | None) -> bytes:
        name = self._names.get((first, second))
        if name is None:
            if len(self._names) >= _KEPT_NAMES:
                self._names.clear()
            text = f"{first} {second}" if second is not None else first
            name = self._names[first, second] = _sized(_SPAN_NAME, text.encode("utf-8", "replace"))
        return name


_KIND_SERVER = _SPAN_KIND + varint(SpanKind.SERVER.value + 1)
_KIND_CLIENT = _SPAN_KIND + varint(SpanKind.CLIENT.value + 1)
_UNSET = _SPAN_STATUS + b"\x00"
_ERROR = _sized(_SPAN_STATUS, _STATUS_CODE + varint(StatusCode.ERROR.value))


def _envelope(maker: SpanMaker) -> tuple[bytes, bytes]:
    """What surrounds the spans of a resource and a scope: the SDK's own encoding, made once."""
    empty = ReadableSpan(name="", resource=maker.resource, instrumentation_scope=SCOPE, context=INVALID_SPAN_CONTEXT)
    resource_spans = encode_spans([empty]).resource_spans[0]
    scope_spans = resource_spans.scope_spans[0]
    del scope_spans.spans[:]
    scope = scope_spans.SerializePartialToString()
    del resource_spans.scope_spans[:]
    return resource_spans.SerializePartialToString(), scope


class DirectOTLPSpanExporter(OTLPSpanExporter):
    """The SDK's OTLP/HTTP exporter (its endpoint, headers, retries and compression), given records."""

    def __init__(self, maker: SpanMaker, semconv: Semconv, environment: Mapping[str, str]) -> None:
        options = http_options(Signal.TRACES, environment)
        super().__init__(**options)
        self._bounded: BoundedTransport | None = options.get("_transport")
        self._encoder = RecordEncoder(maker, semconv)

    def export_records(self, records: Sequence[RequestRecord]) -> Export:
        """Send one batch."""
        if self._shutdown:
            return Export(taken=False)
        data = self._encoder.encode(records)
        if len(data) > self._max_request_size > 0 or not self._client.export(data).success:
            return Export(taken=False)
        return Export(taken=True, rejected_spans=rejected(self._bounded.answer) if self._bounded else 0)

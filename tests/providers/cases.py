"""Fixture cases: what a caller asks, what the provider must get, what it answers, and what the caller must get.

`tests/fixtures/<provider>/<case>/` holds:

- `case.json`: operation, model, config (as in the YAML file, keys literal), and optionally created, request_id,
  path_suffix, original_shape, stream, headers (of a passthrough caller);
- `request.json`: the caller's canonical body (of a passthrough operation: the vendor's own);
- `upstream_request.json`: method, url, headers (credentials of HeaderAuth included), body, and `auth` for other ways to
  authenticate; or `refusal.json`: error_type, message, param;
- `upstream_reply.json` and `reply.json`: a whole reply and its canonical form (none for passthrough: bytes stay);
- `upstream.sse` (`.ndjson`; `.aws.json`, a list of name, payload and perhaps kind, of which the binary stream is made) and `chunks.json`: a stream and its canonical chunks, `stream_error.json` when it
  ends in an error (error_type, message);
- `usage.json`: usage (null when unknown), response_model, response_id, finish_reasons of the reply and of the stream
  (`stream_usage.json` where those differ);
- `upstream_error.json`: status, body; `fault.json`: what is known of message, error_type, param, code, retry_after_s.

Where a case has both a reply and a stream, `request.json` is the whole one's, and the stream must fold into the reply.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from gateway.providers.registry import PROVIDERS, canonical_name
from gateway.providers.spec import Codec, Endpoint, Framing, HeaderAuth
from gateway.types.model_io import ModelRequest, StreamEvent, WireRequest
from gateway.types.route import Operation
from gateway.types.secret import Secret
from gateway.upstream.aws_event_stream import AwsEventStreamDecoder
from gateway.upstream.framing import SseDecoder
from gateway.upstream.ndjson import NdjsonDecoder
from tests.aws_events import message

FIXTURES = Path(__file__).parents[1] / "fixtures"
FILES = frozenset(
    {
        "case.json",
        "request.json",
        "upstream_request.json",
        "refusal.json",
        "upstream_reply.json",
        "reply.json",
        "upstream.sse",
        "upstream.ndjson",
        "upstream.aws.json",
        "chunks.json",
        "stream_error.json",
        "usage.json",
        "stream_usage.json",
        "upstream_error.json",
        "fault.json",
    }
)
CANONICAL = (Operation.CHAT, Operation.COMPLETIONS, Operation.EMBEDDINGS)


class Decoder(Protocol):
    """Cuts bytes into events, at whatever places they were split."""

    def feed(self, data: bytes) -> list[StreamEvent]: ...
    def close(self) -> list[StreamEvent]: ...


DECODERS: dict[Framing, Callable[[], Decoder]] = {
    Framing.SSE: SseDecoder,
    Framing.NDJSON: NdjsonDecoder,
    Framing.AWS_EVENT_STREAM: AwsEventStreamDecoder,
}


class CaseFile(Struct, kw_only=True, forbid_unknown_fields=True):
    """`case.json`."""

    operation: Operation
    model: str
    config: dict[str, Any] = {}
    created: int = 1_700_000_000
    request_id: str = "req-1"
    path_suffix: str = ""
    original_shape: bool = False
    stream: bool | None = None
    headers: dict[str, str] = {}


class Case:
    """One folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = msgspec.json.decode((path / "case.json").read_bytes(), type=CaseFile)

    @property
    def id(self) -> str:
        """`<provider>/<case>`."""
        return f"{self.path.parent.name}/{self.path.name}"

    @property
    def canonical(self) -> bool:
        """False for a vendor's own API, which is passed through."""
        return self.file.operation in CANONICAL

    def has(self, name: str) -> bool:
        """Whether the folder holds a file."""
        return (self.path / name).exists()

    def bytes(self, name: str) -> bytes:
        """A file's bytes; of a stream of AWS's the frames that its events make."""
        content = (self.path / name).read_bytes()
        if not name.endswith(".aws.json"):
            return content
        events = msgspec.json.decode(content)
        return b"".join(
            message(event["name"], msgspec.json.encode(event["payload"]), kind=event.get("kind", "event"))
            for event in events
        )

    def json(self, name: str) -> Any:
        """A file's JSON."""
        return msgspec.json.decode(self.bytes(name))

    @property
    def stream_name(self) -> str | None:
        """The file that holds the upstream's stream, if there is one."""
        names = ("upstream.sse", "upstream.ndjson", "upstream.aws.json")
        return next((name for name in names if self.has(name)), None)

    def endpoint(self) -> Endpoint:
        """The provider's account for this case's model and configuration."""
        provider = PROVIDERS[canonical_name(self.path.parent.name)]
        config = msgspec.convert(self.file.config, provider.config, dec_hook=_secret)
        return provider.connect(config, self.file.model)

    def codec(self) -> Codec:
        """The codec of this case's operation."""
        return self.endpoint().dialect.codecs[self.file.operation]

    def request(self, *, streaming: bool = False) -> ModelRequest:
        """The caller's request; `streaming` turns a whole one into its streamed twin, usage asked for."""
        fields = (
            msgspec.json.decode(self.bytes("request.json"), type=dict[str, Raw]) if self.has("request.json") else {}
        )
        stream = self.file.stream if self.file.stream is not None else fields.get("stream") == Raw(b"true")
        if streaming and not stream:
            stream = True
            if self.canonical:
                fields |= {"stream": Raw(b"true"), "stream_options": Raw(b'{"include_usage":true}')}
        options = msgspec.json.decode(fields.get("stream_options", b"{}"))
        return ModelRequest(
            operation=self.file.operation,
            fields=fields,
            created=self.file.created,
            request_id=self.file.request_id,
            stream=stream,
            include_usage=bool(options.get("include_usage")),
            path_suffix=self.file.path_suffix,
            original_shape=self.file.original_shape,
            headers=tuple(self.file.headers.items()),
        )


def sent(wire: WireRequest, endpoint: Endpoint) -> dict[str, Any]:
    """What goes over the network for a wire request, as `upstream_request.json` words it."""
    headers = dict((*wire.headers, *endpoint.headers))
    result: dict[str, Any] = {"method": wire.method, "url": wire.url, "headers": headers}
    if isinstance(endpoint.auth, HeaderAuth):
        headers |= {name: value.reveal() for name, value in endpoint.auth.headers}
    else:
        fields = msgspec.structs.asdict(endpoint.auth)
        result["auth"] = {"kind": type(endpoint.auth).__name__} | {
            name: value.reveal() if isinstance(value, Secret) else value for name, value in fields.items()
        }
    result["body"] = msgspec.json.decode(wire.body) if wire.body else None
    return result


def _secret(type_: type, value: Any) -> Any:
    if type_ is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(f"no decoder for {type_}")


CASES = tuple(Case(path.parent) for path in sorted(FIXTURES.glob("*/*/case.json")))

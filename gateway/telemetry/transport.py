"""How batches travel by OTLP over HTTP: within a time and a size, whatever the other end answers.

The SDK's transports read an answer until it ends, which for one that never does is until memory ends; and they take a
redirect for success. Here an answer is read up to a few kilobytes and until the deadline, and only 2xx means taken.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp-response
"""

import time
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from opentelemetry.exporter.http.transport._urllib3 import Urllib3HTTPResult, Urllib3HTTPTransport
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from gateway.telemetry.variables import Signal

LONGEST_ANSWER_BYTES = 64 * 1024
_PIECE_BYTES = 4096
_REDIRECT = range(300, 400)


class AnswerError(Exception):
    """What came back is no answer to an export."""


class BoundedTransport(Urllib3HTTPTransport):
    """One exporter's connections. For one thread.

    Args:
        proxy: the URL of the proxy to go through.
    """

    def __init__(self, *, verify: bool | str, cert: str | tuple[str, str] | None, proxy: str | None) -> None:
        super().__init__(verify=verify, cert=cert)
        if proxy is not None:
            # The base has made the options of TLS out of its arguments; a proxy's pool takes the same.
            self._pool = urllib3.ProxyManager(proxy, **self._pool.connection_pool_kw)
        self.answer = b""
        """The body of the last answer that was read."""

    @classmethod
    def by_variables(cls, signal: Signal, environment: Mapping[str, str]) -> "BoundedTransport":
        """The transport for a signal, by the variables of certificates and proxies."""

        def variable(name: str) -> str | None:
            of_signal = environment.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_{name}")
            return of_signal or environment.get(f"OTEL_EXPORTER_OTLP_{name}")

        certificate, key = variable("CLIENT_CERTIFICATE"), variable("CLIENT_KEY")
        collector = urlsplit(variable("ENDPOINT") or "http://localhost")
        return cls(
            verify=variable("CERTIFICATE") or True,
            cert=(certificate, key) if certificate and key else certificate,
            proxy=None if proxy_bypass(collector.hostname or "") else getproxies().get(collector.scheme),
        )

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
        data: bytes | None = None,
    ) -> Urllib3HTTPResult:
        """Send one request. Every failure is the result's `error`."""
        self.answer = b""
        deadline = time.monotonic() + timeout if timeout is not None else None
        try:
            response = self._pool.request(
                method, url, headers=headers, body=data, timeout=timeout, preload_content=False, redirect=False
            )
            if response.status in _REDIRECT:
                response.close()
                return Urllib3HTTPResult(error=AnswerError(f"the collector's address answers with {response.status}"))
            self.answer = _read(response, deadline)
        except Exception as error:  # noqa: BLE001 - as the base class does: a failure is a result
            return Urllib3HTTPResult(error=error)
        return Urllib3HTTPResult(status_code=response.status, reason=response.reason, response=response)


def _read(response: urllib3.BaseHTTPResponse, deadline: float | None) -> bytes:
    body = b""
    # What is closed before its end does not go back to the pool.
    try:
        while piece := response.read1(_PIECE_BYTES):
            body += piece
            if len(body) > LONGEST_ANSWER_BYTES:
                raise AnswerError(f"the collector's answer does not end: {len(body)} bytes so far")
            if deadline is not None and time.monotonic() > deadline:
                raise AnswerError("the collector's answer does not end in time")
    except BaseException:
        response.close()
        raise
    response.release_conn()
    return body


def rejected(answer: bytes) -> int:
    """How many items of a batch the collector says that it did not keep; 0 for an answer that is no protobuf.

    The count stands in the same place of each signal's answer.
    """
    if not answer:
        return 0
    try:
        said = ExportTraceServiceResponse.FromString(answer)
    except Exception:  # noqa: BLE001 - protobuf's implementations raise errors of their own
        return 0
    return max(0, int(said.partial_success.rejected_spans))

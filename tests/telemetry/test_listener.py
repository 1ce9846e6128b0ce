"""The metrics listener: what a scraper gets over HTTP."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.listening import StartError
from gateway.telemetry.cells import Block
from gateway.telemetry.listener import MOST_SCRAPERS, Exposition, MetricsListener
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.readings import Families
from gateway.telemetry.registry import process_registry
from tests.telemetry import facts


@pytest.fixture
def url() -> Iterator[str]:
    """A listener over families with enough series for many pieces."""
    metrics = Metrics(Block.private())
    for number in range(100):
        metrics.record(facts.request(facts.streamed(), stream=True, route=f"route-{number}"))
    listener = MetricsListener(Exposition(metrics.families, (process_registry(),)), "127.0.0.1", 0)
    yield f"http://127.0.0.1:{listener.port}"
    listener.close()


def test_openmetrics_is_given_to_who_accepts_it(url: str) -> None:
    """With the type that names it, exemplars, and its end mark, in one parsable text."""
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    reply = httpx.get(f"{url}/metrics", headers={"accept": accept}, trust_env=False)
    assert reply.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert reply.text.endswith("\n# EOF\n")
    families = {family.name: family for family in parse_openmetrics(reply.text)}
    routes = {sample.labels["route"] for sample in families["gateway_requests"].samples}
    assert len(routes) == 100
    assert any(sample.exemplar for sample in families["gateway_request_duration_seconds"].samples)
    assert "process_resident_memory_bytes" in families


def test_the_text_format_is_given_to_others(url: str) -> None:
    """Without exemplars and end mark."""
    reply = httpx.get(f"{url}/metrics", headers={"accept": "text/plain"}, trust_env=False)
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# EOF" not in reply.text
    assert "trace_id" not in reply.text
    assert {family.name for family in parse_text(reply.text)} > {"gateway_requests", "process_resident_memory_bytes"}


def test_a_scraper_that_takes_gzip_gets_it(url: str) -> None:
    """The same text, a fifth of its size at most."""
    with httpx.Client(trust_env=False) as client:
        plain = client.get(f"{url}/metrics", headers={"accept-encoding": "identity"}).text
        with client.stream("GET", f"{url}/metrics", headers={"accept-encoding": "gzip"}) as reply:
            assert reply.headers["content-encoding"] == "gzip"
            data = b"".join(reply.iter_raw())
    text = gzip.decompress(data).decode()
    assert len(data) < len(text) / 5
    assert _ours(text) == _ours(plain)


def _ours(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(("gateway_", "gen_ai_"))]


def test_other_paths_are_not_found(url: str) -> None:
    """The listener serves metrics and nothing else."""
    assert httpx.get(f"{url}/admin", trust_env=False).status_code == 404


def test_a_scraper_that_leaves_harms_nobody(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Whoever breaks a scrape off, nothing is said on the terminal and the next one is whole."""
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as scraper:
        scraper.sendall(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\n\r\n")
        scraper.recv(100)
        scraping = [thread for thread in threading.enumerate() if "process_request" in thread.name]
        # A close that resets the connection: the listener learns of it in the middle of a write.
        scraper.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert scraping
    for thread in scraping:
        thread.join(10)
    assert capfd.readouterr().err == ""
    assert httpx.get(f"{url}/metrics", trust_env=False).text.count("gateway_request_duration_seconds_count") == 100


def test_scrapers_beyond_the_most_are_refused(url: str) -> None:
    """They get a 503 at once and no thread; when one of the others ends there is room again."""
    address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
    with ExitStack() as stack:
        scrapers = [stack.enter_context(socket.create_connection(address)) for _ in range(MOST_SCRAPERS)]
        with socket.create_connection(address, timeout=10) as refused:
            assert refused.recv(100).startswith(b"HTTP/1.1 503 ")
        serving = [thread for thread in threading.enumerate() if "process_request" in thread.name]
        assert len(serving) == MOST_SCRAPERS
        scrapers.pop().close()
        deadline = time.monotonic() + 10
        while (reply := httpx.get(f"{url}/metrics", trust_env=False)).status_code == 503:
            assert time.monotonic() < deadline, "there is no room again"
    assert reply.status_code == 200


def test_a_scrape_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """With its cause, as a log record rather than as text on the terminal; its connection ends."""

    def broken() -> Families:
        raise ValueError("unreadable cells")

    listener = MetricsListener(Exposition(broken), "127.0.0.1", 0)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"http://127.0.0.1:{listener.port}/metrics", trust_env=False)
    listener.close()
    assert "unreadable cells" in caplog.text


def test_a_taken_port_is_an_error(url: str) -> None:
    """The caller of the constructor learns of it."""
    with pytest.raises(StartError, match="choose another port"):
        MetricsListener(Exposition(Metrics(Block.private()).families), "127.0.0.1", int(url.rsplit(":", 1)[1]))

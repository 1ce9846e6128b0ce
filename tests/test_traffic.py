import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gateway import traffic
from gateway.traffic import Outcome, Scenario, Tally


class Replies(BaseHTTPRequestHandler):
    """Answers by path: /status/N with N, /endless with a stream that stops only when the caller has gone."""

    caller_left: threading.Event

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(b"data: {}\n\n")
            except OSError:
                self.caller_left.set()
            return
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def server() -> Iterator[tuple[int, threading.Event]]:
    left = threading.Event()
    kind = type("Handler", (Replies,), {"caller_left": left})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield listening.server_address[1], left
        finally:
            listening.shutdown()
            thread.join()


def scenario(path: str, **more: object) -> Scenario:
    return Scenario("s", 1, path, lambda _: {"a": 1}, **more)  # type: ignore[arg-type]


def test_a_reply_is_held_against_what_was_expected() -> None:
    """A status that the scenario expects is right, and any other is a surprise."""
    with server() as (port, _):
        rng = random.Random(1)
        right = traffic.send(scenario("/status/404", expects=(404,)), "127.0.0.1", port, rng)
        wrong = traffic.send(scenario("/status/500"), "127.0.0.1", port, rng)
    assert right == Outcome("s", 404, as_expected=True)
    assert wrong == Outcome("s", 500, as_expected=False)


def test_a_caller_who_leaves_hangs_up_at_once() -> None:
    """A caller who leaves early closes the connection, so that the server notices in the middle of its stream."""
    with server() as (port, left):
        outcome = traffic.send(scenario("/endless", leaves_after_bytes=50), "127.0.0.1", port, random.Random(1))
        assert left.wait(timeout=30)
    assert outcome == Outcome("s", 200, as_expected=True)


def test_a_gateway_that_is_down_is_counted_not_raised() -> None:
    """No connection gives an outcome without a status, and the summary line names it."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    outcome = traffic.send(scenario("/"), "127.0.0.1", port, random.Random(1))
    assert outcome == Outcome("s", None, as_expected=False)
    tally = Tally()
    tally.add(outcome)
    assert tally.line() == "traffic: 1 requests, no reply x 1; not as expected: s: no reply x 1"


def test_the_mix_has_every_kind_in_it() -> None:
    """The mix has answered, streamed, abandoned and failing requests, on each of the surfaces."""
    assert {s.expects for s in traffic.LOCAL} >= {(200,), (404,), (400, 422)}
    assert any(s.leaves_after_bytes for s in traffic.LOCAL)
    rng = random.Random(1)
    bodies = [s.body(rng) for s in traffic.LOCAL]
    assert any(isinstance(body, bytes) for body in bodies)
    assert any(not isinstance(body, bytes) and body.get("stream") for body in bodies)
    assert {s.path.split("/")[1] for s in traffic.LOCAL} == {"gateway", "v1"}


def test_traffic_stops_when_told() -> None:
    """Once told to stop, the mix ends with every request that it sent accounted for."""
    stop = threading.Event()

    class Enough(Tally):
        def add(self, outcome: Outcome) -> None:
            super().add(outcome)
            if self.statuses.total() == 3:
                stop.set()

    tally = Enough()
    with server() as (port, _):
        traffic.run(
            "127.0.0.1", port, traffic.MIXES["local"], rng=random.Random(1), stop=stop, tally=tally, longest_s=60
        )
    assert tally.statuses.total() >= 3
    assert stop.is_set()

"""A steady mix of requests to a gateway, so that there is something to see.

`python -m gateway.traffic` sends the mix for examples/local.yaml, on all three routes and surfaces: most requests are
answered, some are streamed, some callers leave in the middle of a stream, and some requests fail, each in one known
way. `--mix tour` is that of four teams, for the routes and keys of examples/tour.yaml. It stops by itself after an hour,
and uses the standard library alone, as any caller could.
"""

import argparse
import contextlib
import http.client
import json
import queue
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

TIMEOUT_S = 60.0
REPORT_EVERY_S = 15.0
LONGEST_S = 3600.0

QUESTIONS = (
    "Name three colours.",
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Give me a rhyme for house.",
    "How do I boil an egg?",
    "What is a gateway?",
    "Tell me a short story about a lighthouse.",
)


@dataclass(frozen=True)
class Scenario:
    """One kind of request.

    `body` makes the payload (bytes go out as they are), `weight` is its share of the mix, `expects` the statuses
    that are right for it, `leaves_after_bytes` how much of the reply the caller reads before it hangs up, `key` the
    gateway key that it sends.
    """

    name: str
    weight: float
    path: str
    body: Callable[[random.Random], Mapping[str, Any] | bytes]
    expects: Sequence[int] = (200,)
    leaves_after_bytes: int | None = None
    key: str = ""


@dataclass(frozen=True)
class Mix:
    """Kinds of requests, how many a second, and how many callers send them."""

    scenarios: Sequence[Scenario]
    rate_per_s: float
    callers: int


@dataclass(frozen=True)
class Outcome:
    """What a caller saw: an HTTP status (None if no reply came), and whether it was the right one."""

    scenario: str
    status: int | None
    as_expected: bool


def _chat(rng: random.Random, **more: Any) -> dict[str, Any]:
    message = {"role": "user", "content": rng.choice(QUESTIONS)}
    return {"messages": [message], "max_tokens": rng.randint(8, 48), **more}


def _openai_chat(rng: random.Random, **more: Any) -> dict[str, Any]:
    return _chat(rng, model="chat", **more)


STREAM = {"stream": True, "stream_options": {"include_usage": True}}

LOCAL: Sequence[Scenario] = (
    Scenario("chat", 6, "/gateway/chat/invocations", _chat),
    Scenario("chat, OpenAI's shape", 4, "/v1/chat/completions", _openai_chat),
    Scenario("chat, streamed", 5, "/v1/chat/completions", lambda rng: _openai_chat(rng, **STREAM)),
    Scenario(
        "chat, caller leaves",
        1,
        "/v1/chat/completions",
        lambda rng: _openai_chat(rng, **STREAM) | {"max_tokens": 200},
        leaves_after_bytes=600,
    ),
    Scenario(
        "completions",
        3,
        "/gateway/completions/invocations",
        lambda rng: {"prompt": rng.choice(QUESTIONS), "max_tokens": rng.randint(8, 32)},
    ),
    Scenario("embeddings", 3, "/gateway/embeddings/invocations", lambda rng: {"text": list(rng.sample(QUESTIONS, 3))}),
    Scenario(
        "embeddings, OpenAI's shape",
        2,
        "/v1/embeddings",
        lambda rng: {"model": "embeddings", "input": rng.choice(QUESTIONS)},
    ),
    Scenario("unknown route", 0.5, "/gateway/no-such-route/invocations", _chat, expects=(404,)),
    Scenario("broken JSON", 0.5, "/gateway/chat/invocations", lambda _: b'{"messages": [', expects=(400, 422)),
    Scenario(
        "wrong type",
        0.5,
        "/gateway/chat/invocations",
        lambda rng: _chat(rng, temperature="warm"),
        expects=(400, 422),
    ),
    Scenario(
        "more tokens than any model has",
        0.5,
        "/v1/chat/completions",
        lambda rng: _openai_chat(rng) | {"max_tokens": 10**12},
        expects=(400, 422),
    ),
    Scenario(
        "longer than the model's context",
        0.5,
        "/v1/chat/completions",
        lambda _: {"model": "chat", "messages": [{"role": "user", "content": "again " * 6000}]},
        expects=(400,),
    ),
)

TOUR_KEYS = {team: f"gwk_{team}_for-the-tour-alone" for team in ("search", "support", "growth", "research")}
"""What examples/tour.yaml has under `keys`."""
_INSTRUCTIONS = "Answer from the pages below, and say which one you used. " * 120


def _asks(team: str, route: str, **more: Any) -> Callable[[random.Random], dict[str, Any]]:
    """A team's chat request: the same long instructions with another question each time."""

    def body(rng: random.Random) -> dict[str, Any]:
        told = {"role": "system", "content": f"You work for {team}. {_INSTRUCTIONS}"}
        asked = {"role": "user", "content": rng.choice(QUESTIONS)}
        return {"model": route, "messages": [told, asked], "max_tokens": rng.randint(40, 160), **more}

    return body


def _of_team(team: str, weight: float, path: str, body: Callable[[random.Random], dict[str, Any]]) -> Scenario:
    return Scenario(f"{team}: {path}", weight, path, body, key=TOUR_KEYS[team])


_CHAT, _COMPLETIONS, _EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
TOUR: Sequence[Scenario] = (
    _of_team("search", 5, _CHAT, _asks("search", "assistant", **STREAM)),
    _of_team("search", 2, _CHAT, _asks("search", "assistant")),
    _of_team("support", 6, _CHAT, _asks("support", "support", **STREAM)),
    _of_team("growth", 1, _CHAT, _asks("growth", "assistant", **STREAM)),
    _of_team(
        "growth",
        1,
        _COMPLETIONS,
        lambda rng: {"model": "drafts", "prompt": rng.choice(QUESTIONS), "max_tokens": rng.randint(20, 80)},
    ),
    _of_team("research", 3, _EMBEDDINGS, lambda rng: {"model": "documents", "input": list(rng.sample(QUESTIONS, 3))}),
    Scenario(
        "support: caller leaves",
        0.3,
        _CHAT,
        _asks("support", "support", **STREAM),
        leaves_after_bytes=600,
        key=TOUR_KEYS["support"],
    ),
    Scenario("nobody's key", 0.2, _CHAT, _asks("nobody", "assistant"), expects=(401,), key="gwk_nobody_has-this-one"),
    Scenario("broken JSON", 0.2, _CHAT, lambda _: b'{"messages": [', expects=(400, 422), key=TOUR_KEYS["growth"]),
)
MIXES = {"local": Mix(LOCAL, rate_per_s=2.0, callers=4), "tour": Mix(TOUR, rate_per_s=4.0, callers=24)}


def send(scenario: Scenario, host: str, port: int, rng: random.Random) -> Outcome:
    """Send one request and read its reply, or as much as the scenario's caller wants. Never raises for the network."""
    content = scenario.body(rng)
    payload = content if isinstance(content, bytes) else json.dumps(content).encode()
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    status = None
    try:
        headers = {"content-type": "application/json"}
        if scenario.key:
            headers["authorization"] = f"Bearer {scenario.key}"
        connection.request("POST", scenario.path, payload, headers)
        reply = connection.getresponse()
        status = reply.status
        reply.read(scenario.leaves_after_bytes)
        if scenario.leaves_after_bytes is not None and connection.sock is not None:
            # Hang up now; a quiet close would let the rest of the reply be sent.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
    except (OSError, http.client.HTTPException):
        return Outcome(scenario.name, status, as_expected=False)
    finally:
        connection.close()
    return Outcome(scenario.name, status, as_expected=status in scenario.expects)


@dataclass
class Tally:
    """Counts of outcomes since the start, safe to add to from several threads."""

    statuses: Counter[str] = field(default_factory=Counter)
    surprises: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, outcome: Outcome) -> None:
        """Count one outcome."""
        status = "no reply" if outcome.status is None else str(outcome.status)
        with self.lock:
            self.statuses[status] += 1
            if not outcome.as_expected:
                self.surprises[f"{outcome.scenario}: {status}"] += 1

    def line(self) -> str:
        """One line for a person, such as `traffic: 30 requests, 200 x 26, 404 x 2, 422 x 2`."""
        with self.lock:
            counts = ", ".join(f"{status} x {n}" for status, n in sorted(self.statuses.items()))
            surprises = ", ".join(f"{what} x {n}" for what, n in sorted(self.surprises.items()))
            sent = self.statuses.total()
        return f"traffic: {sent} requests, {counts or 'none answered yet'}" + (
            f"; not as expected: {surprises}" if surprises else ""
        )


def run(
    host: str, port: int, mix: Mix, *, rng: random.Random, stop: threading.Event, tally: Tally, longest_s: float
) -> None:
    """Send the mix until `stop` is set or `longest_s` has passed. Returns when every caller has finished."""
    waiting: queue.Queue[tuple[Scenario, int] | None] = queue.Queue(maxsize=mix.callers)

    def call() -> None:
        while (task := waiting.get()) is not None:
            scenario, seed = task
            tally.add(send(scenario, host, port, random.Random(seed)))

    callers = [threading.Thread(target=call, daemon=True, name=f"caller-{n}") for n in range(mix.callers)]
    for caller in callers:
        caller.start()
    weights = [scenario.weight for scenario in mix.scenarios]
    ends = time.monotonic() + longest_s
    while time.monotonic() < ends and not stop.wait(rng.expovariate(mix.rate_per_s)):
        scenario = rng.choices(mix.scenarios, weights)[0]
        try:
            waiting.put_nowait((scenario, rng.getrandbits(32)))
        except queue.Full:
            # The model is slower than the mix: a caller who finds no free line tries later.
            continue
    for _ in callers:
        waiting.put(None)
    for caller in callers:
        caller.join()


def main() -> int:
    """Run from the command line until it is stopped or an hour has passed; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway.traffic", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--mix", choices=sorted(MIXES), default="local", help="which requests (default: local)")
    parser.add_argument("--key", default="", help="the gateway key of requests that have none of their own")
    parser.add_argument("--seconds", type=float, default=LONGEST_S, help="stop after this time (default: an hour)")
    arguments = parser.parse_args()
    tally, stop = Tally(), threading.Event()

    def report() -> None:
        while not stop.wait(REPORT_EVERY_S):
            print(tally.line(), flush=True)

    reporter = threading.Thread(target=report, daemon=True, name="report")
    reporter.start()
    rng = random.Random()
    mix = MIXES[arguments.mix]
    keyed = [replace(one, key=one.key or arguments.key) for one in mix.scenarios]
    mix = replace(mix, scenarios=keyed)
    run(arguments.host, arguments.port, mix, rng=rng, stop=stop, tally=tally, longest_s=arguments.seconds)
    stop.set()
    print(tally.line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

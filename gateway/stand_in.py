"""Providers that stand in for real ones: OpenAI's API with each one's own speed, limits and usage, and faults on demand.

    python -m gateway.stand_in --port 8090
    curl -X PUT 'http://127.0.0.1:8090/fault/groq?slower=8&failing=0.3'     # groq is eight times slower, and fails 30%
    curl -X DELETE http://127.0.0.1:8090/fault/groq

A provider's base URL is http://127.0.0.1:8090/NAME/v1. The texts are nonsense; the HTTP, the streams, the token counts and
the waiting are real, so that the gateway's signals and its ledger are as true as with a vendor. Standard library alone.
"""

import argparse
import json
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HOST, PORT = "127.0.0.1", 8090
CACHED_PREFIX_TOKENS = 1_024
"""OpenAI caches prompts from this length on, in steps of 128."""
WORDS = ("a", "lighthouse", "keeps", "ships", "from", "the", "rocks", "and", "tells", "them", "where", "home", "is")
TOKENS_A_REQUEST = 4_000
_MINUTE_S = 60.0


@dataclass(frozen=True)
class Character:
    """How a provider behaves when nothing is wrong: seconds to the first token and for each further one, the requests that
    it takes in a minute, and whether its streams tell their usage unasked, as Mistral's do. Its limit on tokens is that on
    requests times TOKENS_A_REQUEST.
    """

    first_s: float
    per_token_s: float
    requests_a_minute: int
    tells_usage: bool = False


CHARACTERS: Mapping[str, Character] = {
    "openai": Character(0.35, 0.012, 500),
    "groq": Character(0.12, 0.003, 300),
    "mistral": Character(0.25, 0.008, 300, tells_usage=True),
    "vllm": Character(0.06, 0.010, 1_000),
}


@dataclass(frozen=True)
class Fault:
    """What is wrong with a provider: how many times slower it is, and the share (0 to 1) of requests that it fails."""

    slower: float = 1.0
    failing: float = 0.0


@dataclass
class Provider:
    """One stand-in's present state, safe to use from several threads."""

    character: Character
    rng: random.Random
    fault: Fault = Fault()
    lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: set[int] = field(default_factory=set)
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def left(self, now: float, tokens: int) -> tuple[int, int]:
        """Requests and tokens left of this minute's limits, this request with its `tokens` taken; negative when there are
        none. `now` is monotonic.
        """
        with self.lock:
            while self._recent and self._recent[0][0] < now - _MINUTE_S:
                self._recent.popleft()
            self._recent.append((now, tokens))
            most = self.character.requests_a_minute
            return most - len(self._recent), most * TOKENS_A_REQUEST - sum(taken for _, taken in self._recent)

    def fails(self) -> bool:
        """Whether this request is one of those that the fault takes."""
        with self.lock:
            return self.rng.random() < self.fault.failing

    def waits(self, tokens: int) -> tuple[float, float]:
        """Seconds until the first token, and from one token to the next."""
        with self.lock:
            spread, slower = self.rng.lognormvariate(0, 0.35), self.fault.slower
        return self.character.first_s * spread * slower, self.character.per_token_s * spread if tokens else 0.0

    def length(self, most: int) -> int:
        """How many tokens the reply has, at most `most`."""
        with self.lock:
            return max(1, min(most, int(self.rng.lognormvariate(3.3, 0.5))))

    def cached(self, prompt: str, tokens: int) -> int:
        """Input tokens that were read from the cache: those of a long beginning that has been seen before."""
        if tokens < CACHED_PREFIX_TOKENS:
            return 0
        beginning = hash(prompt[: 4 * CACHED_PREFIX_TOKENS])
        with self.lock:
            if beginning not in self._seen:
                self._seen.add(beginning)
                return 0
        return CACHED_PREFIX_TOKENS + (tokens - CACHED_PREFIX_TOKENS) // 256 * 128


def _text(body: Mapping[str, Any]) -> str:
    return json.dumps(body.get("messages") or body.get("prompt") or body.get("input") or "")


def given(body: Mapping[str, Any]) -> int:
    """The tokens that came in: one for each four characters."""
    return max(1, len(_text(body)) // 4)


def usage(body: Mapping[str, Any], provider: Provider, output: int) -> dict[str, Any]:
    """OpenAI's usage of a reply with `output` tokens."""
    tokens = given(body)
    return {
        "prompt_tokens": tokens,
        "completion_tokens": output,
        "total_tokens": tokens + output,
        "prompt_tokens_details": {"cached_tokens": provider.cached(_text(body), tokens)},
    }


def words(count: int, rng: random.Random) -> list[str]:
    """`count` pieces of a reply."""
    return [f"{rng.choice(WORDS)} " for _ in range(count)]


def make_server(
    host: str, port: int, rng: random.Random, clock: Callable[[], float], sleep: Callable[[float], None]
) -> ThreadingHTTPServer:
    """The stand-ins on `host`:`port`; `clock` is monotonic, `sleep` waits."""
    providers = {name: Provider(character, random.Random(rng.random())) for name, character in CHARACTERS.items()}

    class StandIns(_Requests):
        pass

    StandIns.providers, StandIns.clock, StandIns.sleep = providers, staticmethod(clock), staticmethod(sleep)
    server = ThreadingHTTPServer((host, port), StandIns)
    server.daemon_threads = True
    return server


class _Requests(BaseHTTPRequestHandler):
    providers: Mapping[str, Provider]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    protocol_version = "HTTP/1.1"
    # A token leaves when it is there, not when a packet is full.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        """Answer as one of the providers."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name, _, rest = self.path.lstrip("/").partition("/")
        provider = self.providers.get(name)
        if provider is None:
            self._error(404, f"There is no provider {name!r}; there are {', '.join(self.providers)}.")
            return
        requests, tokens = provider.left(self.clock(), given(body))
        limits = {
            "x-ratelimit-limit-requests": str(provider.character.requests_a_minute),
            "x-ratelimit-remaining-requests": str(max(0, requests)),
            "x-ratelimit-remaining-tokens": str(max(0, tokens)),
        }
        if min(requests, tokens) < 0:
            self._error(429, "Rate limit reached.", limits | {"retry-after": "1"})
        elif provider.fails():
            self._error(503, "The model is overloaded.", limits)
        elif rest.endswith("/embeddings"):
            self._embed(provider, body, limits)
        else:
            self._generate(provider, body, limits, chat=rest.endswith("/chat/completions"))

    def do_GET(self) -> None:
        """Every provider's fault."""
        self._json(200, {name: vars(provider.fault) for name, provider in self.providers.items()})

    def do_PUT(self) -> None:
        """Give a provider a fault, such as /fault/groq?slower=8&failing=0.3."""
        self.rfile.read(int(self.headers.get("content-length") or 0))
        address = urlsplit(self.path)
        try:
            fault = Fault(**{name: float(value) for name, value in parse_qsl(address.query)})
        except (TypeError, ValueError) as error:
            self._error(400, f"A fault has slower=FACTOR and failing=SHARE ({error}).")
            return
        self._set(address.path, fault)

    def do_DELETE(self) -> None:
        """Take a provider's fault away."""
        self._set(self.path, Fault())

    def _set(self, path: str, fault: Fault) -> None:
        folder, _, name = path.lstrip("/").partition("/")
        if folder != "fault" or name not in self.providers:
            self._error(404, f"Say /fault/NAME; there are {', '.join(self.providers)}.")
            return
        self.providers[name].fault = fault
        self._json(200, {name: vars(fault)})

    def _embed(self, provider: Provider, body: Mapping[str, Any], limits: Mapping[str, str]) -> None:
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        self.sleep(provider.waits(0)[0])
        data = [{"object": "embedding", "index": index, "embedding": [0.6, 0.8]} for index in range(len(texts))]
        self._json(
            200, {"object": "list", "model": body["model"], "data": data, "usage": usage(body, provider, 0)}, limits
        )

    def _generate(self, provider: Provider, body: Mapping[str, Any], limits: Mapping[str, str], *, chat: bool) -> None:
        count = provider.length(int(body.get("max_tokens") or 200))
        first_s, per_token_s = provider.waits(count)
        text = words(count, random.Random(count))
        name, kind = body["model"], "chat.completion" if chat else "text_completion"
        told = usage(body, provider, count)
        if body.get("stream"):
            heard = told if body.get("stream_options") or provider.character.tells_usage else None
            self._stream(_chunks(text, name, heard, chat=chat), first_s, per_token_s, limits)
            return
        self.sleep(first_s + count * per_token_s)
        whole = "".join(text)
        choice = {"message": {"role": "assistant", "content": whole}} if chat else {"text": whole}
        choices = [{"index": 0, "finish_reason": "stop", **choice}]
        self._json(
            200,
            {"id": "stand-in", "object": kind, "created": 0, "model": name, "choices": choices, "usage": told},
            limits,
        )

    def _stream(self, chunks: Iterator[str], first_s: float, per_token_s: float, limits: Mapping[str, str]) -> None:
        self.send_response(200)
        for name, value in {"content-type": "text/event-stream", "transfer-encoding": "chunked", **limits}.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.sleep(first_s)
            for chunk in chunks:
                piece = f"data: {chunk}\n\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.sleep(per_token_s)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            # The gateway has left, as callers do.
            self.close_connection = True

    def _json(self, status: int, document: object, headers: Mapping[str, str] | None = None) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _error(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self._json(status, {"error": {"message": message, "type": "stand_in"}}, headers)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests are the gateway's to log."""


def _chunks(text: list[str], model: str, told: Mapping[str, Any] | None, *, chat: bool) -> Iterator[str]:
    head = {"id": "stand-in", "created": 0, "model": model}
    head |= {"object": "chat.completion.chunk" if chat else "text_completion"}
    for index, piece in enumerate([*text, ""]):
        last = index == len(text)
        said: dict[str, Any] = ({"delta": {} if last else {"content": piece}}) if chat else {"text": piece}
        yield json.dumps({**head, "choices": [{"index": 0, **said, "finish_reason": "stop" if last else None}]})
    if told is not None:
        yield json.dumps({**head, "choices": [], "usage": told})
    yield "[DONE]"


def main() -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway.stand_in", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--host", default=HOST)
    options = parser.parse_args()
    try:
        server = make_server(options.host, options.port, random.Random(), time.monotonic, time.sleep)
    except OSError as error:
        print(
            f"stand-ins: port {options.port} on {options.host} cannot be used ({error}): choose another with --port",
            file=sys.stderr,
        )
        return 1
    with server:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        print(
            f"Providers stand in on http://{options.host}:{server.server_port}/{{{','.join(CHARACTERS)}}}/v1",
            flush=True,
        )
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())

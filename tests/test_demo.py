import json
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway import demo, traffic
from gateway.demo import Addresses, DemoError


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def config_for(model_ports: Sequence[int], folder: Path) -> Path:
    """examples/local.yaml with other ports for the model."""
    chat_port, embeddings_port = model_ports
    text = demo.find_config().read_text()
    text = text.replace(":8081/", f":{chat_port}/").replace(":8082/", f":{embeddings_port}/")
    path = folder / "local.yaml"
    path.write_text(text)
    return path


@dataclass(frozen=True)
class RunningDemo:
    """A demo that has said it is up, and the ports that it was given."""

    process: subprocess.Popen[str]
    welcome: str
    port: int
    metrics_port: int


@contextmanager
def running_demo(folder: Path, *, with_traffic: bool) -> Iterator[RunningDemo]:
    ports = free_ports(4)
    config = config_for(ports[2:], folder)
    program = (
        "import pathlib, sys; from gateway import demo; "
        f"sys.exit(demo.run('127.0.0.1', {ports[0]}, {ports[1]}, {with_traffic}, pathlib.Path({str(config)!r})))"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                if line.startswith("Ctrl-C"):
                    break
            yield RunningDemo(process, "".join(said), ports[0], ports[1])
        finally:
            process.kill()


def post(url: str, body: str) -> dict[str, object]:
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer: dict[str, object] = json.load(reply)
        return answer


def wait_for_all(demo: RunningDemo) -> str:
    """What was still said until the demo and all that it started have ended: each holds the pipe's other end."""
    assert demo.process.stdout is not None
    return demo.process.stdout.read()


@pytest.mark.model
@pytest.mark.usefixtures("local_model")
def test_the_demo_answers_what_it_suggests_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """Each request that the demo prints gets an answer; Ctrl-C then stops all of it, with status 0."""
    with running_demo(tmp_path, with_traffic=False) as up:
        suggested = [line for line in up.welcome.splitlines() if "curl" in line or "-d '" in line]
        urls = [line.split()[2] for line in suggested[::2]]
        bodies = [line.partition("-d '")[2].removesuffix("'") for line in suggested[1::2]]
        assert [url.split("/")[4] for url in urls] == ["chat", "completions", "embeddings"]
        chat, completions, embeddings = (post(url, body) for url, body in zip(urls, bodies, strict=True))
        with urllib.request.urlopen(f"http://127.0.0.1:{up.metrics_port}/metrics", timeout=10) as reply:
            assert reply.status == 200
        up.process.send_signal(signal.SIGINT)
        said = wait_for_all(up)
        assert up.process.wait(timeout=60) == 0
    assert chat["candidates"]
    assert completions["candidates"]
    assert len(embeddings["embeddings"]) == 2  # type: ignore[arg-type]
    assert "Stopping ..." in said
    assert "Traceback" not in said


@pytest.mark.model
@pytest.mark.usefixtures("local_model")
def test_each_kind_of_traffic_gets_the_reply_that_it_expects(tmp_path: Path) -> None:
    """Every scenario of the mix, good or bad, is answered as documented; the gateway stays healthy, and SIGTERM ends it."""
    with running_demo(tmp_path, with_traffic=False) as up:
        rng = random.Random(1)
        outcomes = [traffic.send(scenario, "127.0.0.1", up.port, rng) for scenario in traffic.LOCAL]
        with urllib.request.urlopen(f"http://127.0.0.1:{up.port}/health", timeout=10) as reply:
            assert reply.status == 200
        up.process.terminate()
        wait_for_all(up)
        assert up.process.wait(timeout=60) == 0
    assert [outcome for outcome in outcomes if not outcome.as_expected] == []


@pytest.mark.model
@pytest.mark.usefixtures("local_model")
def test_a_killed_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    """When the demo itself is killed outright, its model, gateway and traffic end too."""
    with running_demo(tmp_path, with_traffic=True) as up:
        os.kill(up.process.pid, signal.SIGKILL)
        wait_for_all(up)
        assert up.process.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("taken", "named"),
    [(0, "--port"), (1, "--metrics-port"), (2, "the local model"), (3, "the local model's embeddings")],
)
def test_a_taken_port_is_named_before_anything_starts(
    taken: int, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that another process holds ends the demo with status 1, and the message has the port and the remedy."""
    ports = free_ports(4)
    config = config_for(ports[2:], tmp_path)
    with socket.create_server(("127.0.0.1", ports[taken])):
        status = demo.run("127.0.0.1", ports[0], ports[1], False, config)
    said = capsys.readouterr()
    assert status == 1
    assert str(ports[taken]) in said.err
    assert named in said.err
    assert said.out == ""


def test_a_config_without_a_local_model_is_refused(tmp_path: Path) -> None:
    """A config whose routes do not point at a local model is refused by name."""
    path = tmp_path / "other.yaml"
    path.write_text("routes: [{name: chat, route_type: llm/v1/chat, model: {provider: openai, config: {}}}]")
    with pytest.raises(DemoError, match=r"other\.yaml has no chat and embeddings routes"):
        demo.model_ports(path)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:5000"), ("0.0.0.0", "http://127.0.0.1:5000"), ("::", "http://[::1]:5000")],
)
def test_the_printed_address_can_be_reached(host: str, url: str) -> None:
    """A gateway that listens on every address is printed with one that a caller can use."""
    assert Addresses(host, 5000, 9464).api_url == url

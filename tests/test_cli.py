"""The command as a user meets it: real processes, exit statuses, and what they say."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.gateway_process import environment, gateway_process, run_gateway
from tests.openai_replies import openai_chat, openai_stream
from tests.raw_http import raw_connection, request_head
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

USER = [{"role": "user", "content": "hello"}]


def broken_config(folder: Path) -> Path:
    """Three routes, of which the third has a key that is no text."""
    head, _, tail = routes_yaml("http://127.0.0.1:1").rpartition("$OPENAI_API_KEY")
    path = folder / "broken.yaml"
    path.write_text(f"{head}$NO_SUCH_VARIABLE{tail}")
    return path


def good_config(folder: Path, name: str = "good.yaml", extra: str = "") -> Path:
    path = folder / name
    path.write_text(routes_yaml("http://127.0.0.1:1") + extra)
    return path


def assert_one_line(done: "subprocess.CompletedProcess[str]") -> str:
    """The one line that a failed start wrote, which is no traceback."""
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("command", [("start", "--config-path"), ("check-config",)])
def test_a_wrong_config_ends_with_2_and_the_path_of_the_field(command: tuple[str, ...], tmp_path: Path) -> None:
    """A configuration that cannot be used is refused with the path of the wrong field, and exit status 2."""
    done = run_gateway(*command, str(broken_config(tmp_path)))
    assert done.returncode == 2
    assert "routes[2].model.config.openai_api_key" in assert_one_line(done)


@pytest.mark.parametrize("command", [("start", "--config-path"), ("check-config",)])
def test_a_missing_config_is_named(command: tuple[str, ...], tmp_path: Path) -> None:
    """A file that is not there is named, with exit status 2."""
    done = run_gateway(*command, str(tmp_path / "nowhere.yaml"))
    assert done.returncode == 2
    assert "nowhere.yaml" in assert_one_line(done)


def test_a_good_config_is_told_with_its_routes(tmp_path: Path) -> None:
    """check-config says OK, lists the routes, and ends with 0."""
    done = run_gateway("check-config", str(good_config(tmp_path)))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("good.yaml: OK, 3 routes: chat, completions, embeddings\n")


def test_what_has_no_price_is_told_and_no_failure(tmp_path: Path) -> None:
    """check-config names the model that nobody prices, and the `prices_file` that cannot be read, and ends with 0."""
    path = good_config(tmp_path, extra="prices_file: nowhere.json\n")
    path.write_text(path.read_text().replace("gpt-4o-mini", "nobody-prices-this"))
    done = run_gateway("check-config", str(path))
    assert done.returncode == 0
    file, model = done.stderr.splitlines()
    assert "nowhere.json is not used" in file
    assert "model 'nobody-prices-this' of provider 'openai'" in model
    assert done.stdout.endswith("OK, 3 routes: chat, completions, embeddings\n")


@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
def test_a_taken_port_is_named(option: str, tmp_path: Path) -> None:
    """A port that another process holds ends the start with 1 and one line that names the option and the port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"--port": "0", "--metrics-port": "0"} | {option: str(port)}
        arguments = [word for pair in ports.items() for word in pair]
        done = run_gateway("start", "--config-path", str(good_config(tmp_path)), *arguments)
    assert done.returncode == 1
    assert f"{option} {port} on 127.0.0.1: Address already in use" in json.loads(assert_one_line(done))["message"]


@pytest.mark.parametrize("option", ["--host", "--metrics-host"])
def test_an_address_that_is_not_ours_is_named(option: str, tmp_path: Path) -> None:
    """An address that this machine does not have ends the start with 1 and one line."""
    done = run_gateway("start", "--config-path", str(good_config(tmp_path)), "--port", "0", option, "192.0.2.1")
    assert done.returncode == 1
    assert "192.0.2.1" in json.loads(assert_one_line(done))["message"]


def test_a_taken_admin_port_is_named(tmp_path: Path) -> None:
    """The administrators' port is told by its field, with 1 and one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = good_config(tmp_path, extra=f"admin: {{token: $ADMIN_TOKEN, port: {port}}}\n")
        done = run_gateway(
            *("start", "--config-path", str(config), "--port", "0", "--metrics-port", "0"),
            env={"ADMIN_TOKEN": "t" * 40},
        )
    assert done.returncode == 1
    message = json.loads(assert_one_line(done))["message"]
    assert f"admin.port {port} on 127.0.0.1: Address already in use" in message


async def test_a_ledger_in_use_is_refused(tmp_path: Path) -> None:
    """A second gateway on the same SQLite ledger ends with 1 and one line that says who holds it and what to do."""
    config = good_config(tmp_path)
    arguments = ("--config-path", str(config))
    async with gateway_process(None, tmp_path, *arguments) as first:
        done = run_gateway("start", *arguments, "--port", "0", "--metrics-port", "0")
        first.signal()
        assert await first.ended() == 0
    assert done.returncode == 1
    message = json.loads(assert_one_line(done))["message"]
    assert "is in use by process" in message
    assert "ledger.path" in message


@pytest.mark.parametrize("variable", ["GATEWAY_CONFIG", "MLFLOW_GATEWAY_CONFIG"])
async def test_the_environment_names_the_config(variable: str, tmp_path: Path) -> None:
    """Without --config-path, either variable names the file."""
    config = good_config(tmp_path)
    async with (
        gateway_process(None, tmp_path, env={variable: str(config)}) as gateway,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        models = (await client.get(f"{gateway.url}/v1/models")).json()
    assert [model["id"] for model in models["data"]] == ["chat", "completions", "embeddings"]


def test_no_config_is_a_usage_error(tmp_path: Path) -> None:
    """Without any configuration the option and the variables are named."""
    done = run_gateway("start")
    assert done.returncode == 2
    assert "--config-path" in done.stderr
    assert "GATEWAY_CONFIG" in done.stderr


def test_a_wrong_exporter_variable_is_a_usage_error(tmp_path: Path) -> None:
    """OTEL_TRACES_EXPORTER with an exporter that is not there is refused by name."""
    done = run_gateway("start", "--config-path", str(good_config(tmp_path)), env={"OTEL_TRACES_EXPORTER": "zipkin"})
    assert done.returncode == 2
    assert "OTEL_TRACES_EXPORTER is 'zipkin'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains(upstream: ScriptedUpstream, tmp_path: Path, number: signal.Signals) -> None:
    """A stream in flight goes on to its end, whoever comes now is refused, and the exit status is 0."""
    gate = asyncio.Event()
    upstream.script(openai_stream(["Hel", gate, "lo"]))
    body = json.dumps({"model": "chat", "stream": True, "messages": USER}).encode()
    head = request_head("POST", "/v1/chat/completions", [("content-length", str(len(body)))])
    async with (
        gateway_process(routes_yaml(upstream.url), tmp_path) as gateway,
        raw_connection(gateway.url) as caller,
        raw_connection(gateway.url) as idle,
    ):
        await caller.write(head + body)
        seen = await caller.reader.readuntil(b"Hel")
        gateway.signal(number)
        await gateway.until_message("draining")
        # Idle connections are closed after the listening socket.
        assert await idle.reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            async with raw_connection(gateway.url):
                pass
        gate.set()
        seen += await caller.reader.read()
        assert await gateway.ended() == 0
        line = await gateway.log_line()
    assert b'"lo"' in seen
    assert seen.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert (line["status"], line["outcome"]) == (200, "ok")
    assert "Traceback" not in "".join(gateway.messages)


async def test_a_second_signal_does_not_wait(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Whoever signals twice gets the end at once; the stream in flight is charged and logged all the same."""
    upstream.script(openai_stream(["Hel", asyncio.Event(), "lo"]))
    body = json.dumps({"model": "chat", "stream": True, "messages": USER}).encode()
    head = request_head("POST", "/v1/chat/completions", [("content-length", str(len(body)))])
    async with gateway_process(routes_yaml(upstream.url), tmp_path) as gateway, raw_connection(gateway.url) as caller:
        await caller.write(head + body)
        await caller.reader.readuntil(b"Hel")
        gateway.signal()
        await gateway.until_message("draining")
        gateway.signal()
        rest = await caller.reader.read()
        assert await gateway.ended() == 0
        line = await gateway.log_line()
    assert b'"code":"shutting_down"' in rest
    assert line["error_type"] == "shutting_down"
    assert "Traceback" not in "".join(gateway.messages)


async def test_console_traces_show_the_spans(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """With --traces console each request's spans are printed, in one trace with the reply's id."""
    upstream.script(openai_chat("hi"))
    async with (
        gateway_process(routes_yaml(upstream.url), tmp_path, "--traces", "console") as gateway,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        reply = await client.post(f"{gateway.url}/v1/chat/completions", json={"model": "chat", "messages": USER})
        gateway.signal()
        assert await gateway.ended() == 0
    printed = "\n".join(gateway.messages)
    trace_id = reply.headers["x-gateway-trace-id"]
    assert printed.count(f'"trace_id": "0x{trace_id}"') == 3
    for name in ("POST /v1/chat/completions", "chat gpt-4o-mini", "POST"):
        assert f'"name": "{name}"' in printed


async def test_ipv6(tmp_path: Path) -> None:
    """Both listeners take an IPv6 address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    config = routes_yaml("http://127.0.0.1:1")
    async with (
        gateway_process(config, tmp_path, "--host", "::1", "--metrics-host", "::1") as gateway,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        assert (await client.get(f"{gateway.url}/health")).json() == {"status": "OK"}
        assert "gateway_build_info" in (await client.get(f"{gateway.metrics_url}/metrics")).text


HEAVY = ("litestar", "uvicorn", "opentelemetry", "prometheus_client", "aiohttp", "httpx", "botocore", "cryptography")


@pytest.mark.parametrize("arguments", [["--help"], ["start", "--help"], ["check-config", "good.yaml"]])
def test_short_commands_import_little(arguments: list[str], tmp_path: Path) -> None:
    """Help and check-config answer without loading the server, the telemetry or a client."""
    good_config(tmp_path)
    program = (
        "import sys; from gateway.cli import main\n"
        f"try: main({arguments!r})\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", program]
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        command, env=environment({"PYTHONPATH": root}), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")

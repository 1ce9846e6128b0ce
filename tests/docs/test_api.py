"""docs/api.md tells the errors, headers and paths that there are."""

import re
from pathlib import Path

import pytest

from gateway.api import errors
from gateway.api.application import find_surface
from gateway.types.errors import ErrorType, GatewayError
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat, openai_error
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
ERRORS = re.findall(r"^\| `(\w+)` \| (\w+) \| (\d+) \| (\d+) \| \S", PAGE, re.MULTILINE)


def test_the_table_has_every_cause() -> None:
    """Each word of the closed list has one row, in the list's order."""
    assert [row[0] for row in ERRORS] == [error_type.value for error_type in ErrorType]


@pytest.mark.parametrize(("word", "outcome", "status", "mlflow_status"), ERRORS)
def test_a_row_says_what_the_code_does(word: str, outcome: str, status: str, mlflow_status: str) -> None:
    """Whose fault it is and both statuses are those of the code."""
    error = GatewayError(ErrorType(word), "")
    assert error.error_type.outcome.value == outcome
    assert (errors.status_of(error), errors.mlflow_status_of(error)) == (int(status), int(mlflow_status))


def test_the_paths_are_served() -> None:
    """Every path that takes a POST has its surface."""
    paths = re.findall(r"^\| `POST (\S+)` \|", PAGE, re.MULTILINE)
    assert len(paths) == 10
    unserved = [path for path in paths if find_surface(re.sub(r"\{\w+\}", "x", path)) is None]
    assert unserved == []


async def test_the_headers_are_sent(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """Replies have the headers of the table, and no other of ours."""
    prices = "prices: [{model: gpt-4o-mini, input_usd_per_mtok: 1, output_usd_per_mtok: 1}]\n"
    gateway = await start_gateway(prices + routes_yaml(upstream.url))
    upstream.script(openai_chat(), openai_error(429, headers=[("retry-after", "1")]))
    body = {"messages": [{"role": "user", "content": "hello"}]}
    good = await gateway.client.post("/gateway/chat/invocations", json=body)
    bad = await gateway.client.post("/gateway/chat/invocations", json=body)
    told = set(
        re.findall(r"^\| `([a-z-]+)` \| ", PAGE.split("## What each reply has")[1].split("\n## ")[0], re.MULTILINE)
    )
    plain = {"content-type", "content-length", "date", "server"}
    assert (set(good.headers) | set(bad.headers)) - plain == told

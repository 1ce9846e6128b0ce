"""The process's own messages: lines on standard error, which nobody need read."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.telemetry.messages import FewAlike, JsonFormatter, MessageHandler


@contextmanager
def messages(descriptor: int) -> Iterator[tuple[logging.Logger, MessageHandler]]:
    """A logger that writes to a descriptor alone; closed at the end."""
    handler = MessageHandler(descriptor)
    logger = logging.Logger("gateway")  # noqa: LOG001 - one that nobody else writes to
    logger.addHandler(handler)
    try:
        yield logger, handler
    finally:
        handler.close()


def test_messages_are_lines() -> None:
    """A logged exception is one JSON line with its traceback inside."""
    try:
        raise ValueError("a\nb")
    except ValueError:
        record = logging.LogRecord("gateway", logging.ERROR, "f", 1, "it %s", ("broke",), sys.exc_info())
    text = JsonFormatter().format(record)
    assert "\n" not in text
    parsed = json.loads(text)
    assert (parsed["message"], parsed["level"]) == ("it broke", "ERROR")
    assert "ValueError" in parsed["exception"]


def test_no_file_gets_a_closed_outputs_number() -> None:
    """Where an output is closed, our lines go nowhere: not into the file or the socket that is opened next."""
    code = (
        "import os\n"
        "from gateway.telemetry.messages import configure_logging\n"
        "os.closerange(0, 3)\n"
        "configure_logging()\n"
        "devices = {os.path.realpath(f'/proc/self/fd/{number}') for number in range(3)}\n"
        "os._exit(devices != {os.devnull})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_messages_are_written_in_order() -> None:
    """What was said before the end has been written by the end."""
    reader, writer = os.pipe()
    with messages(writer) as (logger, _):
        for number in range(50):
            logger.info("message %d", number)
    os.close(writer)
    lines = os.read(reader, 1 << 20).splitlines()
    os.close(reader)
    assert [json.loads(line)["message"] for line in lines] == [f"message {number}" for number in range(50)]


def test_nobody_reads_and_nobody_waits() -> None:
    """With its pipe full, saying something returns at once; what was not written is counted to the line."""
    reader, writer = os.pipe()
    lost: list[float] = []
    with messages(writer) as (logger, handler):
        handler.count_lost(lost.append)
        for number in range(5_000):
            logger.info("message %d", number)
        handler.close()
        os.set_blocking(reader, False)
        held = os.read(reader, 1 << 20).count(b"\n")
        assert held > 0
        assert held + sum(lost) == 5_000
        os.close(reader)
        handler._queue._thread.join(10.0)
    os.close(writer)


def test_losses_before_anyone_counts_are_counted_later() -> None:
    """A message that is lost while the process starts is in the sum."""
    reader, writer = os.pipe()
    os.close(reader)
    with messages(writer) as (logger, handler):
        logger.error("nobody hears this")
        handler.close()
        lost: list[float] = []
        handler.count_lost(lost.append)
    os.close(writer)
    assert lost == [1]


def test_a_failing_collector_floods_nobody() -> None:
    """Of many messages of a kind from exporters a few are written, and later how many there were; others all are."""
    now = 0.0
    few = FewAlike(lambda: now)

    def said(name: str, text: str, level: int = logging.ERROR) -> str | None:
        record = logging.LogRecord(name, level, "f", 1, text, (), None)
        return record.getMessage() if few.filter(record) else None

    exporter = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
    assert [said(exporter, "failed") for _ in range(100)].count("failed") == 5
    assert said(exporter, "failed differently") == "failed differently"
    assert [said("gateway", "failed") for _ in range(100)].count("failed") == 100
    assert [said(exporter, "fine", logging.INFO) for _ in range(100)].count("fine") == 100
    now = 11.0
    assert said(exporter, "failed") == "failed (and 95 like it before)"
    now = 30.0
    assert said(exporter, "failed") == "failed"

"""A real headless Chromium, spoken to in the DevTools protocol over a pipe, for pages that only a browser can try.

    async with browser() as page:
        await page.open(url)
        text = await page.evaluate("document.title")

Source: https://chromedevtools.github.io/devtools-protocol/ and Chromium's `--remote-debugging-pipe`: it reads commands on
descriptor 3 and writes answers on 4, each JSON text ended by a zero byte.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.servers import require

_WAIT_S = 100.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--no-first-run",
    "--no-proxy-server",
    "--remote-debugging-pipe",
)


class Page:
    """One tab."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0
        self._session: str | None = None

    async def attach(self) -> None:
        """Open the tab."""
        target = await self._call("Target.createTarget", url="about:blank")
        attached = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]

    async def open(self, url: str) -> None:
        """Go to a page, which then begins to load."""
        await self._call("Page.navigate", url=url)

    async def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        found = await self._call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        self._writer.write(json.dumps(command).encode() + b"\0")
        async with asyncio.timeout(_WAIT_S):
            while True:
                # What is no answer to this command is an event, of which none is needed.
                answer = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    result: dict[str, Any] = answer["result"]
                    return result


@asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A browser with a fresh profile and one empty tab; the test is skipped where Chromium is not installed."""
    program = require("chromium")
    loop = asyncio.get_running_loop()
    commands_in, commands_out = os.pipe()
    answers_in, answers_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            # Not every sh knows descriptors above 9.
            "bash",
            "-c",
            f'exec "$0" "$@" 3<&{commands_in} 4>&{answers_out}',
            program,
            *_FLAGS,
            f"--user-data-dir={profile}",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(commands_in, answers_out),
        )
        os.close(commands_in)
        os.close(answers_out)
        reader = asyncio.StreamReader(limit=1 << 26)
        reading, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers_in, "rb")
        )
        writing, protocol = await loop.connect_write_pipe(
            lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(commands_out, "wb")
        )
        try:
            page = Page(reader, asyncio.StreamWriter(writing, protocol, None, loop))
            await page.attach()
            yield page
        finally:
            writing.close()
            reading.close()
            if process.returncode is None:
                process.kill()
            await process.wait()

"""The documentation page in a real browser."""

import json

from tests.browser import browser
from tests.conftest import StartGateway
from tests.openai_replies import openai_chat
from tests.running_gateway import routes_yaml
from tests.scripted_upstream import ScriptedUpstream

_TRY = """
(async () => {
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const until = async (find) => {
    for (let found = find(); ; found = find()) {
      if (found) return found;
      await pause(10);
    }
  };
  // The page draws itself anew as it loads: what was found before may be no part of it any more.
  const inside = (selector) => document.querySelector("#operations-gateway-gateway_chat " + selector);
  while (!inside("button.execute")) {
    (await until(() => inside(".opblock-summary-control"))).click();
    await pause(1000);
  }
  inside("button.execute").click();
  const reply = await until(() => inside(".live-responses-table tr.response"));
  return JSON.stringify({
    status: reply.querySelector("td.response-col_status").textContent,
    body: reply.querySelector("td.response-col_description pre").textContent,
    loaded: performance.getEntriesByType("resource").map((entry) => entry.name),
  });
})()
"""


async def test_try_it_out(upstream: ScriptedUpstream, start_gateway: StartGateway) -> None:
    """A click on "Execute" sends the example as it stands and shows the reply; nothing is loaded from elsewhere."""
    gateway = await start_gateway(routes_yaml(upstream.url))
    upstream.script(openai_chat("Because of Rayleigh."))
    async with browser() as page:
        await page.open(f"{gateway.url}/docs")
        found = json.loads(await page.evaluate(_TRY))
    assert found["status"].strip().startswith("200")
    candidates = json.loads(found["body"])["candidates"]
    assert candidates[0]["message"]["content"] == "Because of Rayleigh."
    assert upstream.requests[0].json()["messages"][0]["content"].startswith("Why is the sky blue?")
    assert found["loaded"]
    assert [url for url in found["loaded"] if not url.startswith((gateway.url, "data:", "blob:"))] == []

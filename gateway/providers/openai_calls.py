"""Numbers for the calls in streams of servers that leave them out: OpenAI's clients join a call's pieces by them.

Mistral, Ollama and Gemini's compatible API did so for long; what they send without a number is always a whole call.
"""

from typing import Any

import msgspec


class CallNumbers:
    """Numbers the calls of one stream, in each choice apart."""

    def __init__(self) -> None:
        self._begun: dict[str, int] = {}

    def numbered(self, data: bytes) -> bytes:
        """The chunk with an `index` in each call, as a server-sent event. The chunk is one that has been read before."""
        chunk: dict[str, Any] = msgspec.json.decode(data)
        for choice in chunk["choices"]:
            calls = (choice.get("delta") or {}).get("tool_calls")
            place = str(choice.get("index"))
            for call in calls or ():
                number = self._begun.get(place, 0)
                self._begun[place] = number + 1
                if call.get("index") is None:
                    call["index"] = number
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

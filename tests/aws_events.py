"""Messages of AWS's binary event stream, written by the specification."""

import struct
from zlib import crc32


def message(name: str, payload: bytes, *, kind: str = "event", text: str = "", extra_headers: bytes = b"") -> bytes:
    """One message. `kind` is `event`, `exception`, or `error`, whose `text` goes into its header."""
    if kind == "error":
        headers = _string(":error-code", name) + _string(":error-message", text)
    else:
        headers = _string(f":{kind}-type", name) + _string(":content-type", "application/json")
    headers = extra_headers + headers + _string(":message-type", kind)
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return whole + struct.pack(">I", crc32(whole))


def _string(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()

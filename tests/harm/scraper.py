"""A scraper in a process of its own: `python -m tests.harm.scraper URL INTERVAL_S` scrapes as Prometheus does, one
scrape every so many seconds; with `bytes` for the interval, it reads one byte at a time.

It waits for lines on its standard input, each with the seconds that it shall scrape for, and prints a line for each
whole scrape: its samples.
"""

import http.client
import socket
import sys
import time
import zlib
from urllib.parse import urlsplit

ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def scrape(address: str) -> int:
    """One scrape; the number of samples."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET", "/metrics", headers={"accept": ACCEPT, "accept-encoding": "gzip"})
    reply = connection.getresponse()
    lines = zlib.decompress(reply.read(), 31).splitlines()
    connection.close()
    assert lines[-1] == b"# EOF"
    return sum(not line.startswith(b"#") for line in lines)


def trickle(address: str, until_s: float) -> None:
    """A scrape that takes a byte each millisecond, and is left when the time is over."""
    host, _, port = address.partition(":")
    with socket.socket() as connection:
        # A small window, so that what is not read stays at the gateway.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect((host, int(port)))
        connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\n\r\n")
        while connection.recv(1) and time.monotonic() < until_s:
            time.sleep(0.001)


def serve(address: str, interval: str) -> None:
    """Scrape when told to."""
    for line in sys.stdin:
        due_s = time.monotonic()
        until_s = due_s + float(line)
        if interval == "bytes":
            trickle(address, until_s)
        while interval != "bytes" and due_s < until_s:
            print(scrape(address), flush=True)
            due_s = max(due_s + float(interval), time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))
        print("done", flush=True)


if __name__ == "__main__":
    serve(urlsplit(sys.argv[1]).netloc, sys.argv[2])

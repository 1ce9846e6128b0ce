"""Sockets to listen on, and why a process could not start."""

import socket

BACKLOG = 2048


class StartError(Exception):
    """The process cannot start. The text says why and what to do, for a person."""


def listen(host: str, port: int, setting: str = "port") -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises StartError, which names the `setting` of the port."""
    try:
        # By its addresses, since a name may stand for IPv4 or IPv6.
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise StartError(f"{setting} {port} on {host}: {error.strerror}; choose another port or address") from None
    listening.setblocking(False)
    return listening


def url_of(host: str, port: int) -> str:
    """The address of a listener as a URL."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""Whose traces are continued: a caller who names one may be anybody, and could hang its requests into another's trace."""

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache


def trusting(rule: bool | Sequence[str]) -> Callable[[str], bool]:
    """Whether the trace of a caller at an address is continued: everybody's, nobody's, or those in networks.

    Raises ValueError for a network that is none.
    """
    if isinstance(rule, bool):
        return lambda address: rule
    networks = tuple(map(ipaddress.ip_network, rule))

    @lru_cache(maxsize=4096)
    def trusts(address: str) -> bool:
        try:
            there = ipaddress.ip_address(address)
        except ValueError:
            # A Unix socket has no address.
            return False
        mapped = there.ipv4_mapped if isinstance(there, ipaddress.IPv6Address) else None
        return any((mapped or there) in network for network in networks)

    return trusts

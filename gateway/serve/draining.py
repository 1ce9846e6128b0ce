"""What becomes of an attempt whose caller has left: broken off at once, or read to its end so that its cost is exact.

Reading on costs what the provider still generates, so it is a policy of the target and has a bound.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from gateway.serve.delivery import Delivery
from gateway.types.errors import ErrorType, RequestError

_T = TypeVar("_T")


async def drained(exchange: Coroutine[Any, Any, _T], delivery: Delivery, bound_s: float) -> _T:
    """Run an exchange that goes on for `bound_s` seconds after its caller has left.

    Raises RequestError (`caller_left`) at the exchange's end, or at the bound, once the caller has left; what the
    exchange raises before. A cancelled task is cancelled, as ever: a shutdown does not wait for the bound.
    """
    loop = asyncio.get_running_loop()
    bound = asyncio.timeout(None)

    def left() -> None:
        bound.reschedule(loop.time() + bound_s)

    try:
        async with bound:
            delivery.on_left = left
            try:
                result = await exchange
            finally:
                delivery.on_left = None
    except TimeoutError:
        if not bound.expired():
            raise
        raise caller_left() from None
    if delivery.left:
        raise caller_left()
    return result


def caller_left() -> RequestError:
    """How a request ends whose caller does not wait for it."""
    return RequestError(ErrorType.CALLER_LEFT, "The caller closed the connection.")

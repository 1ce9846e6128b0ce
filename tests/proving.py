"""Long proofs: as far as their share of `make prove`'s minutes allows, with progress on the way and a figure at the end.

A proof is a test marked `prove` that takes the fixture `proof`:

    @pytest.mark.prove(share=2)         # of the minutes; 1 where nothing is said
    def test_...(proof: Proof) -> None:
        for number in proof.rounds(10_000):
            ...
        proof.found(kills=number + 1, lost=0)

GAUGEWAY_PROVE_MINUTES says how long all selected proofs may take together.
"""

import os
import sys
import time
from collections.abc import Iterator

import pytest

MINUTES = float(os.environ.get("GAUGEWAY_PROVE_MINUTES", "10"))
_TOLD_EVERY_S = 5.0


class Proof:
    """One proof under way.

    Args:
        name: what its lines begin with.
        seconds: how long it may go on.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self.name = name
        self.seconds = seconds
        self._began_s = time.monotonic()
        self._told_s = self._began_s

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began_s

    def rounds(self, full: int) -> Iterator[int]:
        """Numbers from 0, until there were `full` of them or the time is up; one at least."""
        for number in range(full):
            now_s = time.monotonic()
            if number and now_s - self._began_s >= self.seconds:
                return
            if now_s - self._told_s >= _TOLD_EVERY_S:
                self._told_s = now_s
                self.say(f"{number:,} of {full:,} in {now_s - self._began_s:,.0f} of {self.seconds:,.0f} s")
            yield number

    def found(self, **figures: float) -> None:
        """What was proved, in one line."""
        told = ", ".join(
            f"{name.replace('_', ' ')} {value:,}"
            if isinstance(value, int)
            else f"{name.replace('_', ' ')} {value:,.3f}"
            for name, value in figures.items()
        )
        self.say(f"PROVED in {self.elapsed_s:,.0f} s: {told}")

    def say(self, text: str) -> None:
        """A line for whoever waits (`make prove` lets it through)."""
        print(f"\n{self.name}: {text}", end="", file=sys.stderr, flush=True)


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Proof:
    """The test's share of the minutes."""
    shares = [share for item in request.session.items if (share := _share(item)) is not None]
    share = _share(request.node)
    assert share is not None, "only a test marked `prove` has a share of the minutes"
    return Proof(request.node.name.removeprefix("test_"), MINUTES * 60 * share / sum(shares))


def _share(item: pytest.Item) -> float | None:
    marker = item.get_closest_marker("prove")
    return None if marker is None else float(marker.kwargs.get("share", 1.0))

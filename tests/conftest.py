"""Fixtures for any test. They are started once a run and only if a test asks for them."""

from collections.abc import Iterator

import pytest

from tests import local_model_process


@pytest.fixture(scope="session")
def local_model() -> Iterator[local_model_process.LocalModel]:
    """The real local model (SmolLM2-135M-Instruct), on free ports of the loopback."""
    with local_model_process.local_model() as running:
        yield running

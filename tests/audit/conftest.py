"""What the tests of the two verifiers share."""

import pytest

from tests.audit import verifiers


@pytest.fixture(params=["verify.py", "verify.mjs"])
def verify(request: pytest.FixtureRequest) -> verifiers.Verifier:
    """Each of the two programs in turn."""
    return verifiers.verifier(request.param)

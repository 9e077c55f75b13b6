"""The finished tiny run that bad input is held against."""

from __future__ import annotations

import pytest

from cli_runs import Workshop, finished_workshop


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A finished run, model and scan; nothing may be changed in it."""
    return finished_workshop(tmp_path_factory.getbasetemp())

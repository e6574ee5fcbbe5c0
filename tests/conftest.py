"""What every test shares: device, precision, seeds, property-test profiles and the real images."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

IMAGES = "MDTHEORY_MINI_IMAGENET"
CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")

settings.register_profile("dev", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, database=None)
settings.register_profile("nightly", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("MDTHEORY_HYPOTHESIS", "ci" if CI else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """``pytest --device cuda`` runs every device-aware test there."""
    parser.addoption("--device", default="cpu", help="the torch device of device-aware tests, e.g. cuda")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device asked for on the command line."""
    return torch.device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """The library never reads the global generator; a test that does gets the same numbers every time."""
    torch.manual_seed(0)


@pytest.fixture
def float64():
    """New tensors are float64 inside the test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def mini_imagenet_path() -> Path:
    """The folder of the real images; a test that needs it is skipped where the variable is not set, and fails where it lies."""
    value = os.environ.get(IMAGES)
    if not value:
        pytest.skip(f"{IMAGES} is not set")
    path = Path(value)
    if not path.exists():
        pytest.fail(f"{IMAGES} must name an existing folder or file, got {value!r}; correct it or unset it")
    return path

"""What every test shares: device, precision, seeds, property-test profiles, a cache of its own and
the real images.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from hypothesis import settings

IMAGES = "MDTHEORY_MINI_IMAGENET"
CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
CACHE = pytest.StashKey[str]()

settings.register_profile("dev", deadline=None, max_examples=25)
settings.register_profile("ci", deadline=None, max_examples=50, derandomize=True, database=None)
settings.register_profile("nightly", deadline=None, max_examples=1000)
settings.load_profile(os.environ.get("MDTHEORY_HYPOTHESIS", "ci" if CI else "dev"))

if not torch.cuda.is_available():
    # read where a kernel is defined: those of the library then run on CPU tensors
    os.environ["TRITON_INTERPRET"] = "1"

for given, default in (("SIGHUP", signal.SIG_DFL), ("SIGINT", signal.default_int_handler)):
    # a shell's background jobs and nohup leave them ignored, and what a test starts inherits that
    if signal.getsignal(getattr(signal, given)) is signal.SIG_IGN:
        signal.signal(getattr(signal, given), default)

torch.set_num_threads(1)  # the same bits alone and beside other workers


def pytest_addoption(parser: pytest.Parser) -> None:
    """``pytest --device cuda`` runs every device-aware test there."""
    parser.addoption(
        "--device", default="cpu", help="the torch device of device-aware tests, e.g. cuda"
    )


def pytest_configure(config: pytest.Config) -> None:
    """A device that is there; one fresh cache folder for the whole run, which the workers of
    pytest-xdist inherit.
    """
    if (device := config.getoption("--device")) != "cpu":
        from mdtheory.run.build import pick_device

        try:
            pick_device(device)
        except ValueError as error:
            raise pytest.UsageError(f"--device: {error}") from error
    if not hasattr(config, "workerinput"):
        config.stash[CACHE] = os.environ["MDTHEORY_CACHE"] = tempfile.mkdtemp(
            prefix="mdtheory-tests-"
        )


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the cache folder."""
    if CACHE in config.stash:
        shutil.rmtree(config.stash[CACHE], ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI, where the images are promised, a test that is skipped for want of them fails."""
    report = yield
    if report.skipped and CI and os.environ.get(IMAGES):
        needs_images = item.get_closest_marker("images") or "mini_imagenet_path" in getattr(
            item, "fixturenames", ()
        )
        if needs_images or IMAGES in str(report.longrepr):
            report.outcome = "failed"
            report.longrepr = (
                f"{IMAGES} is set, so this test must run; it was skipped: {report.longrepr}"
            )
    return report


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device asked for on the command line."""
    from mdtheory.run.build import pick_device

    return pick_device(request.config.getoption("--device"))


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """The library never reads the global generator; a test that does gets the same numbers every
    time.
    """
    torch.manual_seed(0)


@pytest.fixture
def float64() -> Iterator[torch.dtype]:
    """New tensors are float64 inside the test."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch.float64
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def mini_imagenet_path() -> Path:
    """The real images; a test that needs them is skipped where the variable is not set, and fails
    where it is wrong.
    """
    value = os.environ.get(IMAGES)
    if not value:
        pytest.skip(f"{IMAGES} is not set")
    path = Path(value)
    if not path.exists():
        pytest.fail(
            f"{IMAGES} must name an existing folder or file, got {value!r}; correct it or unset it",
            pytrace=False,
        )
    return path


REGISTRIES = {
    "mdtheory.geometry.base": "geometries",
    "mdtheory.maps.base": "maps",
    "mdtheory.models.base": "models",
    "mdtheory.inner.estimators.base": "estimators",
    "mdtheory.data.sources.base": "data_sources",
    "mdtheory.data.readers": "readers",
}


@pytest.fixture(autouse=True)
def nothing_stays_registered() -> Iterator[None]:
    """What a test registers, by a plug-in say, is gone with it."""
    loaded = [(sys.modules[m], name) for m, name in REGISTRIES.items() if m in sys.modules]
    known = [getattr(module, name) for module, name in loaded]
    held = [(registry, dict(registry._factories)) for registry in known]
    yield
    for registry, factories in held:
        added = [slug for slug in registry._factories if slug not in factories]
        for slug in added:
            if registry._factories[slug].__module__.startswith("mdtheory."):
                continue  # found by discovery since
            del registry._factories[slug]

"""Where the real images are promised (the variable is set), CI accepts no skip for want of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
TESTS = """
import os
import pytest

def test_with_images(mini_imagenet_path):
    assert mini_imagenet_path.is_dir()

@pytest.mark.images
def test_that_gives_up():
    pytest.skip("no time")

def test_that_blames_the_images():
    pytest.skip("MDTHEORY_MINI_IMAGENET has no test split")

def test_skipped_for_another_reason():
    pytest.skip("no GPU")

def test_has_a_cache_of_its_own():
    assert os.path.isdir(os.environ["MDTHEORY_CACHE"])
"""

# what the conftest calls; loading the real one takes seconds
TORCH = """
set_num_threads = manual_seed = lambda number: None

class cuda:
    is_available = staticmethod(lambda: False)
"""


@pytest.fixture
def outcome(tmp_path):
    """Run the tests above under this project's conftest and return pytest's counts."""

    def run(**variables: str) -> tuple[str, str]:
        shutil.copy(CONFTEST, tmp_path)
        (tmp_path / "test_planted.py").write_text(TESTS)
        (tmp_path / "torch.py").write_text(TORCH)
        (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = images\n")
        inherited = {
            k: v
            for k, v in os.environ.items()
            if k not in ("CI", "MDTHEORY_MINI_IMAGENET", "MDTHEORY_CACHE")
        }
        inherited = {k: v for k, v in inherited.items() if not k.startswith("PYTEST_")}
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-ra",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--color=no",
        ]
        done = subprocess.run(
            command, cwd=tmp_path, env={**inherited, **variables}, capture_output=True, text=True
        )
        return done.stdout.splitlines()[-1], done.stdout

    return run


def test_without_the_variable_the_skip_says_why(outcome):
    last, text = outcome(CI="true")
    assert "1 passed, 4 skipped" in last
    assert "MDTHEORY_MINI_IMAGENET is not set" in text


def test_in_ci_with_the_variable_a_skip_for_images_fails(outcome, tmp_path):
    last, text = outcome(CI="true", MDTHEORY_MINI_IMAGENET=str(tmp_path))
    assert "2 failed, 2 passed, 1 skipped" in last
    assert "FAILED test_planted.py::test_that_gives_up" in text
    assert "FAILED test_planted.py::test_that_blames_the_images" in text


def test_outside_ci_a_skip_stays_a_skip(outcome, tmp_path):
    last, _ = outcome(MDTHEORY_MINI_IMAGENET=str(tmp_path))
    assert "2 passed, 3 skipped" in last


def test_a_variable_that_names_nothing_fails(outcome, tmp_path):
    last, text = outcome(MDTHEORY_MINI_IMAGENET=str(tmp_path / "missing"))
    assert "1 error" in last
    assert "must name an existing folder" in text

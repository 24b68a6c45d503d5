from pathlib import Path

import keras
import pytest

from tests.apps.running import run_app_here
from tests.conftest import torch_only


def pytest_collection_modifyitems(items):
    """The tests of what an app leaves behind run on PyTorch; that it runs on the others is in `test_every_app.py`."""
    for item in items:
        if "run_app" in getattr(item, "fixturenames", ()):
            item.add_marker(torch_only)


@pytest.fixture(scope="module")
def run_app(tmp_path_factory):
    """Run an app at `--quick` size: `run_app("char_tagging", *flags)` gives its folder and what it printed."""

    def run(name: str, *flags: str) -> tuple[Path, str]:
        folder = tmp_path_factory.mktemp(name) / "run"
        printed = run_app_here(name, folder, *flags)
        assert f"run folder {folder} ({keras.backend.backend()})" in printed
        return folder, printed

    return run

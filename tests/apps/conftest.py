import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import torch_only

APPS = Path(__file__).parents[2] / "apps"


def pytest_collection_modifyitems(items):
    """The tests of what an app leaves behind run on PyTorch; that it runs on the others is in `test_every_app.py`."""
    for item in items:
        if "run_app" in getattr(item, "fixturenames", ()):
            item.add_marker(torch_only)


@pytest.fixture(scope="module")
def run_app(tmp_path_factory):
    """Run an app at `--quick` size as a user would: `run_app("char_tagging", *flags)` gives its folder and output."""

    def run(name: str, *flags: str) -> tuple[Path, str]:
        folder = tmp_path_factory.mktemp(name) / "run"
        command = [sys.executable, "-m", "kseq", "run", str(APPS / f"{name}.py"), "--quick", "--output", str(folder)]
        done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert f"run folder {folder} ({os.environ['KERAS_BACKEND']})" in done.stdout
        return folder, done.stdout

    return run

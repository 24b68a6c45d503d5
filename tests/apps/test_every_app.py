"""Every app runs at `--quick` size on TensorFlow and JAX; what it leaves behind is looked at on PyTorch."""

import json

import keras
import pytest

from tests.apps.conftest import APPS

SMALL = {
    "char_tagging": ("--units", "16"),
    "image_classification": ("--embed-dim", "16", "--depth", "1"),
    "sentiment": ("--units", "16", "--embed-dim", "16"),
}


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="the tests of the apps run them on PyTorch")
@pytest.mark.parametrize("name", sorted(path.stem for path in APPS.glob("*.py")))
def test_an_app_runs(run_app, name):
    folder, _ = run_app(name, "--no-baselines", *SMALL.get(name, ()))
    assert json.loads((folder / "config.json").read_text())["backend"] == keras.backend.backend()
    assert json.loads((folder / "metrics.json").read_text())

"""Every app runs at `--quick` size on TensorFlow and JAX; what it leaves behind is looked at on PyTorch."""

import json

import keras
import pytest

from tests.apps.conftest import APPS

SMALL = {  # flags of an app; of others --no-baselines alone
    "char_tagging": ("--no-baselines", "--units", "16"),
    "image_classification": ("--no-baselines", "--embed-dim", "16", "--depth", "1"),
    "long_range_context": ("--models", "unet"),
    "sentiment": ("--no-baselines", "--units", "16", "--embed-dim", "16"),
}


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="the tests of the apps run them on PyTorch")
@pytest.mark.parametrize("name", sorted(path.stem for path in APPS.glob("*.py")))
def test_an_app_runs(run_app, name):
    folder, _ = run_app(name, *SMALL.get(name, ("--no-baselines",)))
    assert json.loads((folder / "config.json").read_text())["backend"] == keras.backend.backend()
    assert json.loads((folder / "metrics.json").read_text())

"""Every app runs at `--quick` size on TensorFlow or JAX, by turns; what it leaves behind is looked at on PyTorch."""

import json

import keras
import pytest

from tests.apps.films import write_films
from tests.apps.running import APPS, run_app_here
from tests.conftest import WHOLE

NAMES = sorted(path.stem for path in APPS.glob("*.py"))
TURN = slice(None) if WHOLE else slice(keras.backend.backend() == "jax", None, 2)  # layers conform on both
SMALL = {  # flags of an app; of others --no-baselines alone
    "char_tagging": ("--no-baselines", "--units", "16"),
    "image_classification": ("--no-baselines", "--embed-dim", "16", "--depth", "1"),
    "long_range_context": ("--models", "unet"),
    "sentiment": ("--no-baselines", "--units", "16", "--embed-dim", "16"),
}


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="the tests of the apps run them on PyTorch")
@pytest.mark.parametrize("name", NAMES[TURN])
def test_an_app_runs(name, tmp_path):
    folder = tmp_path / "run"
    flags = SMALL.get(name, ("--no-baselines",))
    if name == "arrow_of_time":
        flags = (*flags, "--clips", str(write_films(tmp_path)))  # its own have to be downloaded
    run_app_here(name, folder, *flags)
    assert json.loads((folder / "config.json").read_text())["backend"] == keras.backend.backend()
    assert json.loads((folder / "metrics.json").read_text())

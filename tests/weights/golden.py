"""Reading a golden file."""

import json
from pathlib import Path

import keras
import numpy as np

FOLDER = Path(__file__).parents[1] / "golden"


def read(name):
    """The state, the other arrays, and what the file says about them."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    state = {key[6:]: arrays.pop(key) for key in list(arrays) if key.startswith("state/")}
    return state, arrays, meta


def close(got, expected, tolerance=1e-5):
    np.testing.assert_allclose(keras.ops.convert_to_numpy(got), expected, rtol=tolerance, atol=tolerance)

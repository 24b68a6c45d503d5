import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.layers import AttentionGate

random = np.random.default_rng(10)
SKIP = random.normal(size=(2, 3, 4, 6)).astype("float32")
GATE = random.normal(size=(2, 3, 4, 5)).astype("float32")


def test_it_is_the_equation():
    layer = AttentionGate(3)
    alpha = keras.ops.convert_to_numpy(layer([SKIP, GATE]))
    W_x, W_g, psi = (getattr(layer, f"{name}_projection").get_weights()[0] for name in ("skip", "gate", "psi"))
    scale = 1 / np.sqrt(1 + 1e-5)  # of a batch normalisation that has seen nothing
    hidden = np.maximum(SKIP @ W_x + GATE @ W_g, 0) * scale
    np.testing.assert_allclose(alpha, 1 / (1 + np.exp(-hidden @ psi * scale)), atol=1e-5)
    assert layer.compute_output_shape([SKIP.shape, GATE.shape]) == alpha.shape == (2, 3, 4, 1)
    assert AttentionGate.from_config(layer.get_config()).channels == 3


def test_bad_arguments():
    with pytest.raises(InputError, match="channels 0: give 1 or more"):
        AttentionGate(0)
    with pytest.raises(InputError, match="differ in space; bring the second to the first"):
        AttentionGate()([SKIP, GATE[:, :2]])

import keras
import numpy as np
import pytest

from kseq.backend.crossentropy import crossentropy, portable_crossentropy
from tests.gradients import gradients


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_both_forms_agree_in_values_and_gradients(smoothing):
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(2, 4, 5)).astype("float32")
    targets, weights = random.integers(0, 5, (2, 4)), random.normal(size=(2, 4)).astype("float32")
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    wanted = (1 - smoothing) * np.eye(5)[targets] + smoothing / 5
    for form in (crossentropy, portable_crossentropy):
        got = form(keras.ops.convert_to_tensor(targets), keras.ops.convert_to_tensor(logits), smoothing)
        np.testing.assert_allclose(keras.ops.convert_to_numpy(got), -(wanted * np.log(p)).sum(axis=-1), 1e-5, 1e-5)

        def loss(z, form=form):
            return keras.ops.sum(keras.ops.multiply(form(keras.ops.convert_to_tensor(targets), z, smoothing), weights))

        np.testing.assert_allclose(gradients(loss, [logits])[0], (p - wanted) * weights[..., None], 1e-4, 1e-5)

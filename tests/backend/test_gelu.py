import math

import keras
import numpy as np

from kseq.backend.gelu import gelu
from tests.gradients import gradients

X = np.concatenate([np.linspace(-9, 9, 2001), [-30, 30, 0]]).astype("float32")


def test_it_is_the_equation():
    expected = [x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in X.astype("float64")]
    for training in (False, True):
        got = keras.ops.convert_to_numpy(gelu(keras.ops.convert_to_tensor(X), training=training))
        np.testing.assert_allclose(got, expected, atol=2e-6, rtol=1e-6)


def test_its_slope():
    cdf = np.array([0.5 * (1 + math.erf(x / math.sqrt(2))) for x in X.astype("float64")])
    expected = cdf + X * np.exp(-0.5 * X.astype("float64") ** 2) / math.sqrt(2 * math.pi)
    for training in (False, True):
        (got,) = gradients(lambda x, t=training: keras.ops.sum(gelu(x, training=t)), [X])
        np.testing.assert_allclose(got, expected, atol=2e-6)

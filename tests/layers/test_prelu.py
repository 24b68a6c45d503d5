import keras
import numpy as np
import pytest

from kseq.backend.prelu import portable_prelu, prelu
from kseq.layers import PReLU
from tests import conformance
from tests.backend.test_convolution import check_same

X = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype("float32")


def test_conformance(tmp_path):
    conformance.check_layer(lambda: PReLU(shared_axes=[1, 2, 3]), X, tmp_path)


@pytest.mark.parametrize("axes", [[1, 2, 3], [1, 2], None], ids=["one slope", "of channels", "of all"])
def test_it_is_the_equation(axes):
    layer = PReLU(shared_axes=axes)
    layer.build(X.shape)
    shape = layer.alpha.shape
    slope = np.random.default_rng(1).normal(size=shape).astype("float32")
    layer.set_weights([slope])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(layer(X)), np.where(X > 0, X, slope * X), atol=1e-6)


def test_chosen_and_portable_forms_agree():
    check_same(prelu, portable_prelu, [X, np.float32([[[-0.3]]])])

import numpy as np
import pytest

from kseq.backend.group_norm import group_norm, portable_group_norm
from tests.backend.test_convolution import check_same


@pytest.mark.parametrize("shape", [(2, 4096, 16), (1, 64, 64, 16), (2, 16, 16, 16, 16), (2, 5, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_chosen_and_portable_forms_agree(shape, affine):
    """The first three are large enough for the form of PyTorch."""
    random = np.random.default_rng(len(shape))
    inputs = [random.normal(size=s).astype("float32") for s in (shape, *[shape[-1:]] * 2 * affine)]

    def form(x, gamma=None, beta=None):
        return group_norm(x, gamma, beta, shape[-1], 1e-3, training=True)

    def other(x, gamma=None, beta=None):
        return portable_group_norm(x, gamma, beta, shape[-1], 1e-3)

    check_same(form, other, inputs)

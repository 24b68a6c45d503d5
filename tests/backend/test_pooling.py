from functools import partial

import numpy as np
import pytest
from keras import ops

from kseq.backend.pooling import max_pooling, reshaped_max_pooling
from tests.backend.test_convolution import check_same

random = np.random.default_rng(4)


@pytest.mark.parametrize(("shape", "size"), [((2, 4, 6, 3), (2, 3)), ((1, 4, 2, 6, 2), (2, 2, 2))])
def test_all_forms_agree(shape, size):
    x = random.normal(size=shape).astype("float32")
    plain = partial(ops.max_pool, pool_size=size, strides=size, data_format="channels_last")
    for form in (partial(reshaped_max_pooling, size=size), partial(max_pooling, size=size, strides=size)):
        check_same(form, plain, [x])


def test_windows_that_overlap_or_do_not_fit():
    x = random.normal(size=(1, 7, 5, 2)).astype("float32")
    got = ops.convert_to_numpy(max_pooling(ops.convert_to_tensor(x), size=(3, 2), strides=(2, 2)))
    windows = [[x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 2].max((1, 2)) for j in range(2)] for i in range(3)]
    np.testing.assert_array_equal(got, np.stack([np.stack(row, 1) for row in windows], 1))

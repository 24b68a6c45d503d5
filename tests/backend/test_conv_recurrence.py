from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from kseq.backend import conv_recurrence as forms
from tests.gradients import gradients

random = np.random.default_rng(5)
TIME, BATCH, FILTERS = 3, 2, 2
MASK = np.array([[1, 0], [0, 1], [1, 1]], dtype=bool)  # (time, batch): a hole, and padding on the left
FUNCTIONS = {"activation": keras.activations.tanh, "recurrent_activation": keras.activations.sigmoid}


def arrays(*shapes):
    return [random.normal(size=shape).astype("float32") for shape in shapes]


def check_same(forms, portable, inputs):
    """All outputs agree, and the gradients of a random sum of them."""
    expected = [ops.convert_to_numpy(one) for one in portable(*map(ops.convert_to_tensor, inputs))]
    weights = arrays(*(one.shape for one in expected))

    def loss(*tensors, form):
        return sum(ops.sum(ops.multiply(one, weight)) for one, weight in zip(form(*tensors), weights, strict=True))

    wanted = gradients(partial(loss, form=portable), inputs)
    assert all(np.abs(gradient).max() > 0 for gradient in wanted)
    for form in forms:
        for one, two in zip(form(*map(ops.convert_to_tensor, inputs)), expected, strict=True):
            np.testing.assert_allclose(ops.convert_to_numpy(one), two, atol=1e-5)
        for one, two in zip(gradients(partial(loss, form=form), inputs), wanted, strict=True):
            np.testing.assert_allclose(one, two, atol=1e-4, rtol=1e-4)


CASES = {  # space, kernel size, whether masked, whether with peepholes, whether with dropout
    "1-D": ((5,), (3,), True, True, True),
    "2-D": ((4, 3), (3, 2), False, False, True),
    "larger than the map": ((2, 3), (5, 5), True, False, False),
    "3-D": ((3, 2, 2), (3, 2, 2), False, True, False),
}


@pytest.mark.parametrize(("space", "size", "masked", "peepholes", "drops"), CASES.values(), ids=CASES)
def test_derived_chosen_and_portable_recurrences_agree(space, size, masked, peepholes, drops):
    mask = ops.convert_to_tensor(MASK) if masked else None
    state = (BATCH, *space, FILTERS)
    shapes = [(TIME, *state[:-1], 4 * FILTERS), state, state, (*size, FILTERS, 4 * FILTERS)]
    inputs = arrays(*shapes, *[state[1:]] * (3 * peepholes))
    kept = 2 * (np.random.default_rng(6).random(state) < 0.5).astype("float32") if drops else None

    def run(a, h, c, kernel, *peepholes, form):
        sequence, last = form(a, mask, [h, c], kernel, peepholes or None, kept, **FUNCTIONS)
        return sequence, *last

    both = [partial(run, form=form) for form in (forms.derived_conv_recurrence, forms.conv_recurrence)]
    if keras.backend.backend() == "jax":
        both = both[1:]  # which is the derived one
    check_same(both, partial(run, form=forms.portable_conv_recurrence), inputs)


def test_an_activation_without_a_known_slope_takes_the_portable_form():
    inputs = arrays((TIME, BATCH, 3, 8), (BATCH, 3, 2), (BATCH, 3, 2), (3, 2, 8))
    functions = FUNCTIONS | {"recurrent_activation": keras.activations.hard_sigmoid}

    def run(a, h, c, kernel, form):
        sequence, last = form(a, None, [h, c], kernel, **functions)
        return sequence, *last

    check_same([partial(run, form=forms.conv_recurrence)], partial(run, form=forms.portable_conv_recurrence), inputs)


@pytest.mark.parametrize(
    ("space", "size", "padding", "biased"),
    [((5,), (2,), "same", True), ((4, 5), (3, 2), "valid", False), ((3, 2, 2), (3, 1, 2), "same", True)],
)
def test_derived_chosen_and_portable_convolutions_of_frames_agree(space, size, padding, biased):
    inputs = arrays((TIME, BATCH, *space, 3), (*size, 3, 4), *[(4,)] * biased)
    options = {"strides": (1,) * len(size), "padding": padding}
    derived = partial(forms.derived_frame_convolution, padding=padding)
    both = [derived, partial(forms.frame_convolution, **options)]
    portable = partial(forms.portable_frame_convolution, **options)
    check_same([lambda *t, form=form: (form(*t),) for form in both], lambda *t: (portable(*t),), inputs)


def test_the_gradient_of_a_kernel_is_summed_in_single_precision():
    """In bfloat16 a sum that has come to 256 stands still when ones are added."""
    x = ops.cast(np.array([256] + 63 * [1]).reshape(64, 1, 1, 1), "bfloat16")
    found = forms._kernel_gradient(x, ops.ones_like(x), ops.ones((1, 1, 1), "bfloat16"), ((0, 0),))
    assert keras.backend.standardize_dtype(found.dtype) == "bfloat16"
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(found, "float32")).item(), 256 + 63, rtol=0.01)

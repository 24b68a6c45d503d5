import keras
import numpy as np
import pytest
from scipy.interpolate import RegularGridInterpolator

from kseq.backend.resizing import linear_resizing, portable_linear_resizing
from kseq.errors import InputError
from kseq.layers import LinearResizing
from tests import conformance
from tests.gradients import gradients

random = np.random.default_rng(5)
SEQUENCES, IMAGES, VOLUMES = (
    random.normal(size=(2, *space, 3)).astype("float32") for space in ((5,), (5, 7), (3, 5, 7))
)

CONFIGURATIONS = {
    "1-D": (SEQUENCES, {"size": 9}),
    "2-D": (IMAGES, {"scale": (2, 3), "align_corners": True}),
    "3-D": (VOLUMES, {"size": (6, 4, 14)}),
}


@pytest.mark.parametrize(("inputs", "arguments"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_conformance(inputs, arguments, tmp_path):
    conformance.check_layer(lambda: LinearResizing(**arguments), inputs, tmp_path)


def interpolated(x, size, align_corners):
    """The piecewise linear function through the places of `x`, constant outside of them, at the new places."""
    space = x.shape[1:-1]
    if align_corners:
        axes = [np.linspace(0, old - 1, new) if new > 1 else np.zeros(1) for old, new in zip(space, size, strict=True)]
    else:
        axes = [(np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(space, size, strict=True)]
    axes = [np.clip(axis, 0, old - 1) for axis, old in zip(axes, space, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    whole = RegularGridInterpolator([np.arange(old) for old in space], np.moveaxis(x.astype("float64"), 0, -2))
    return np.moveaxis(whole(places), -2, 0)


@pytest.mark.parametrize("form", [linear_resizing, portable_linear_resizing])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("inputs", "size"),
    [(SEQUENCES, (13,)), (IMAGES, (9, 21)), (IMAGES, (3, 7)), (IMAGES, (1, 9)), (VOLUMES, (6, 2, 9))],
)  # fmt: skip
def test_it_is_the_piecewise_linear_function(inputs, size, align_corners, form):
    got = keras.ops.convert_to_numpy(form(keras.ops.convert_to_tensor(inputs), size=size, align_corners=align_corners))
    np.testing.assert_allclose(got, interpolated(inputs, size, align_corners), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="compares with PyTorch")
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("inputs", [SEQUENCES, IMAGES, VOLUMES])
def test_the_portable_form_is_that_of_torch(inputs, align_corners):
    import torch

    size = tuple(2 * n + 3 for n in inputs.shape[1:-1])
    mode = ("linear", "bilinear", "trilinear")[len(size) - 1]
    first = torch.tensor(np.moveaxis(inputs, -1, 1))
    expected = torch.nn.functional.interpolate(first, size=size, mode=mode, align_corners=align_corners)
    got = portable_linear_resizing(torch.tensor(inputs), size=size, align_corners=align_corners)
    np.testing.assert_allclose(got.cpu().numpy(), np.moveaxis(expected.numpy(), 1, -1), atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
def test_both_forms_have_the_same_gradients(align_corners):
    weights = keras.ops.convert_to_tensor(random.normal(size=(2, 10, 21, 3)).astype("float32"))
    of_forms = [
        gradients(
            lambda x, form=form: keras.ops.sum(form(x, size=(10, 21), align_corners=align_corners) * weights), [IMAGES]
        )
        for form in (linear_resizing, portable_linear_resizing)
    ]
    np.testing.assert_allclose(*(g[0] for g in of_forms), atol=1e-4)


def test_the_same_size_is_the_identity():
    for arguments in ({"size": (5, 7)}, {"scale": 1}):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(LinearResizing(**arguments)(IMAGES)), IMAGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "size None and scale None: give one of the two"),
        ({"size": 4, "scale": 2}, "size 4 and scale 2: give one"),
        ({"size": (0, 4)}, r"size \(0, 4\): give positive numbers"),
        ({"scale": -1}, "scale -1: give positive numbers"),
        ({"size": (4, 4, 4)}, r"size \(4, 4, 4\): does not fit an input of shape \(2, 5, 7, 3\)"),
        ({"scale": 0.5}, r"scale 0.5: would make an input of \(5, 7\) one of \(2.5, 3.5\); give a scale that leads to"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        LinearResizing(**arguments).compute_output_shape(IMAGES.shape)


def test_an_unknown_size_is_refused():
    with pytest.raises(InputError, match="give a known size to every axis but the batch"):
        LinearResizing(scale=2).compute_output_shape((None, None, 7, 3))

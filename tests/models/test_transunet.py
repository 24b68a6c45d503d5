import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import TransUNet
from kseq.models.registry import variants
from tests import conformance
from tests.conftest import torch_only
from tests.numpy_initializers import numpy_initializers

random = np.random.default_rng(9)
IMAGES = random.normal(size=(2, 32, 16, 1)).astype("float32")
SMALL = {
    "embed_dim": 8,
    "depth": 1,
    "num_heads": 2,
    "resnet_width": 32,
    "resnet_depths": (1, 1, 1),
    "bridge_channels": 8,
    "decoder_channels": (8, 8, 4, 4),
}


@pytest.fixture(autouse=True, scope="module")
def fast_building():
    with numpy_initializers():
        yield


def trainable(**arguments):
    return sum(int(np.prod(v.shape)) for v in TransUNet(**arguments).trainable_variables)


def test_conformance(tmp_path):
    """Of the pure one: the layers of the residual network have tests of their own, and take JAX long to compile."""
    conformance.check_model(lambda: TransUNet(IMAGES.shape[1:], 3, hybrid=False, **SMALL), IMAGES, tmp_path)


@pytest.fixture(scope="module")
def hybrid():
    return TransUNet(IMAGES.shape[1:], 3, **SMALL | {"dropout": 0.0})


@torch_only
def test_every_parameter_of_the_hybrid_learns(hybrid):
    model = keras.models.clone_model(hybrid)
    model.get_layer("position_encoding").set_weights([random.normal(size=(2, 8))])
    conformance.check_learning(model, IMAGES)


def test_gray_images_are_repeated_and_the_skip_that_is_short_is_filled_up_with_zeros_behind_its_end(hybrid):
    names = ("three_channels", "stage_0_block_0_relu", "skip_1", "stage_1_block_0_relu")
    outputs = keras.Model(hybrid.input, [hybrid.get_layer(name).output for name in names])
    colour, short, filled, next_one = outputs.predict(IMAGES, verbose=0)
    np.testing.assert_array_equal(colour, np.repeat(IMAGES, 3, axis=-1))
    assert (short.shape, next_one.shape) == ((2, 7, 3, 128), (2, 4, 2, 256))
    np.testing.assert_array_equal(filled, np.pad(short, [(0, 0), (0, 1), (0, 1), (0, 0)]))
    assert hybrid.output_shape == (None, 32, 16, 3)


def test_number_of_skips():
    with keras.device("meta") if keras.backend.backend() == "torch" else keras.name_scope("count"):
        counts = [trainable(input_shape=(32, 16, 1), num_classes=3, **SMALL, skips=skips) for skips in range(4)]
    assert np.diff(counts).tolist() == [9 * 8 * 256, 9 * 8 * 128, 9 * 4 * 32]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch builds models without their weights")
@pytest.mark.parametrize("name", [name for name in variants() if name.startswith("transunet")])
def test_published_parameter_counts(name):
    variant = variants()[name]
    with keras.device("meta"):
        one, two = (trainable(**variant.arguments | {"depth": depth}) for depth in (1, 2))
    assert one + (variant.arguments["depth"] - 1) * (two - one) == variant.parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (32, 16)}, r"input_shape \(32, 16\): give \(height, width, channels\)"),
        ({"input_shape": (40, 8, 3)}, r"must be multiples of 16; give an input of \(32, 16\) or \(48, 16\)"),
        ({"input_shape": (8, 8, 3)}, r"give an input of \(16, 16\)$"),
        ({"num_classes": 0}, "num_classes 0"),
        ({"num_heads": 0}, "num_heads 0: does not divide embed_dim 8"),
        ({"num_heads": 3}, "num_heads 3: does not divide embed_dim 8"),
        ({"decoder_channels": (8, 8)}, r"decoder_channels \(8, 8\): give 4 numbers"),
        ({"resnet_width": 40}, "resnet_width 40: give a multiple of 32"),
        ({"skips": 4}, "skips 4: give a number from 0 to 3"),
        ({"drop_path": 1.0}, "drop_path 1.0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        TransUNet(**{"input_shape": (32, 16, 3), "num_classes": 3} | SMALL | arguments)

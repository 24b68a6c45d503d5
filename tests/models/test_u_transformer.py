import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import UNet, UTransformer
from kseq.models.registry import variants
from tests import conformance
from tests.conftest import torch_only

random = np.random.default_rng(13)
IMAGES = random.normal(size=(2, 8, 4, 1)).astype("float32")
SMALL = {"channels": (4, 8), "num_heads": 2}


def test_conformance(tmp_path):
    conformance.check_model(lambda: UTransformer(IMAGES.shape[1:], 3, **SMALL), IMAGES, tmp_path)


@torch_only
def test_volumes():
    """Whose 8 channels sines and cosines of three axes do not divide."""
    model = UTransformer((4, 4, 8, 1), 2, **SMALL, max_positions=8)
    volumes = random.normal(size=(1, 4, 4, 8, 1)).astype("float32")
    assert model.predict(volumes, verbose=0).shape == (1, 4, 4, 8, 2)


def test_without_attention_it_is_the_unet():
    model = UTransformer(IMAGES.shape[1:], 3, **SMALL, self_attention=False, cross_attention=False)
    unet = UNet(IMAGES.shape[1:], 3, channels=SMALL["channels"], normalization="batch")
    assert [v.path for v in model.variables] == [v.path for v in unet.variables]
    unet.set_weights(model.get_weights())
    np.testing.assert_array_equal(*(one.predict(IMAGES, verbose=0) for one in (model, unet)))


@pytest.mark.parametrize(("self_attention", "cross_attention"), [(False, False), (True, False), (False, True)])
def test_only_attention_sees_far(self_attention, cross_attention):
    switches = {"self_attention": self_attention, "cross_attention": cross_attention}
    model = UTransformer((40, 1), 1, **SMALL, **switches)
    x = random.normal(size=(1, 40, 1)).astype("float32")
    far = x.copy()
    far[:, 38] += 3
    change = np.abs(model.predict(far, verbose=0) - model.predict(x, verbose=0))[0, :20]
    assert (change.max() > 1e-6) == (self_attention or cross_attention)


def test_skips_are_multiplied_with_gates_between_0_and_1():
    model = UTransformer(IMAGES.shape[1:], 3, **SMALL)
    names = ("cross_attention_0", "encoder_0_activation_1", "gated_skip_0")
    gate, skip, gated = keras.Model(model.inputs, [model.get_layer(n).output for n in names]).predict(IMAGES, verbose=0)
    assert ((gate > 0) & (gate < 1)).all()
    assert gate.std() > 1e-3
    np.testing.assert_allclose(gate * skip, gated, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch counts without allocating")
def test_parameters():
    variant = variants()["u_transformer"]
    with keras.device("meta"):
        assert variant.model(**variant.arguments).count_params() == variant.parameters


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 3}, r"num_heads 3: give a divisor of all channels, \(4, 8\)"),
        ({"input_shape": (7, 8, 1)}, r"multiples of 2; give \(6, 8\) or \(8, 8\)"),
        ({"input_shape": (2, 2, 1), "normalization": "instance"}, "has one place"),
        ({"max_positions": 0}, "max_positions 0"),
        ({"dropout": -0.1}, "dropout -0.1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        UTransformer(**{"input_shape": (8, 8, 1), "num_classes": 2} | SMALL | arguments)

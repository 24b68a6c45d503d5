import math

import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import AttentionUNet, ResidualUNet, UNet
from kseq.models.registry import variants
from tests import conformance

random = np.random.default_rng(12)
IMAGES = random.normal(size=(2, 8, 4, 2)).astype("float32")
VOLUMES = random.normal(size=(2, 4, 4, 8, 1)).astype("float32")

CONFIGURATIONS = {
    "default": (UNet, IMAGES, {}),
    "all": (
        UNet,
        VOLUMES,
        {"normalization": "group", "groups": 2, "residual": True, "upsampling": "linear", "dropout": 0.1},
    ),
    "attention": (AttentionUNet, IMAGES, {"dropout": 0.1}),
    "residual": (ResidualUNet, VOLUMES, {}),
}


@pytest.mark.parametrize(("model", "images", "arguments"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_conformance(model, images, arguments, tmp_path):
    conformance.check_model(lambda: model(images.shape[1:], 3, channels=(4, 6), **arguments), images, tmp_path)


def count(make):
    """Without allocating where the backend can."""
    with keras.device("meta") if keras.backend.backend() == "torch" else keras.name_scope("count"):
        return make().count_params()


def test_published_parameter_counts():
    """From the shapes of a U-Net of a 32nd of the width, for a channel and two classes, three and one, one and one."""
    shapes = {v.path: [*v.shape] for v in UNet((16, 16, 1), 2, channels=(2, 4, 8, 16, 32)).variables}
    counts = []
    for channels, classes in ((1, 2), (3, 1), (1, 1)):
        parameters = 0
        for path, (*others, filters) in shapes.items():
            is_first, is_head = "encoder_0_convolution_0" in path, "logits" in path
            if others:
                others[-1] = channels if is_first else 32 * others[-1]
            parameters += math.prod(others) * (classes if is_head else 32 * filters)
        counts.append(parameters)
    assert counts == [31_030_658, 31_031_745, 31_030_593]


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only PyTorch counts without allocating")
@pytest.mark.parametrize("name", [name for name in variants() if "unet" in name and "swin" not in name])
def test_parameters_of_variants(name):
    variant = variants()[name]
    if variant.model in (UNet, ResidualUNet, AttentionUNet):
        assert count(lambda: variant.model(**variant.arguments)) == variant.parameters


def test_logits_see_as_far_as_the_paper_says_and_no_farther():
    """Two levels of two convolutions: 2 places, 2 · 2 at half the resolution, 2 again, and what pooling adds."""
    model = UNet((40, 1), 1, channels=(4, 4))
    x = random.normal(size=(1, 40, 1)).astype("float32")
    far = x.copy()
    far[:, 38] += 1
    changed = np.abs(model.predict(far, verbose=0) - model.predict(x, verbose=0))[0, :, 0] > 0
    assert not changed[: 38 - 10].any()
    assert changed[36:].any()


def test_deep_supervision_has_logits_at_each_resolution():
    model = UNet((8, 16, 1), 3, channels=(2, 3, 4, 5), deep_supervision=True)
    outputs = model.predict(np.ones((2, 8, 16, 1)), verbose=0)
    assert {name: x.shape for name, x in outputs.items()} == {
        "logits": (2, 8, 16, 3),
        "auxiliary_0": (2, 4, 8, 3),
        "auxiliary_1": (2, 2, 4, 3),
    }
    plain = UNet((8, 16, 1), 3, channels=(2, 3, 4, 5))
    kept = {v.path: v for v in model.variables}
    for variable in plain.variables:
        variable.assign(keras.ops.convert_to_numpy(kept[variable.path]).copy())
    np.testing.assert_allclose(plain.predict(np.ones((2, 8, 16, 1)), verbose=0), outputs["logits"], atol=1e-5)


def test_gates_and_the_non_local_block():
    model = UNet(IMAGES.shape[1:], 2, channels=(4, 6), attention_gates=True, non_local=True)
    plain = UNet(IMAGES.shape[1:], 2, channels=(4, 6))
    kept = {v.path: v for v in model.variables}
    for variable in plain.variables:
        variable.assign(keras.ops.convert_to_numpy(kept[variable.path]).copy())
    maps = keras.Model(model.inputs, [model.get_layer(n).output for n in ("attention_gate_0", "non_local", "logits")])
    gate, deep, logits = maps.predict(IMAGES, verbose=0)
    assert gate.shape == (2, 8, 4, 1)
    assert ((gate > 0) & (gate < 1)).all()
    before = keras.Model(plain.inputs, plain.get_layer("encoder_1_activation_1").output)
    np.testing.assert_allclose(before.predict(IMAGES, verbose=0), deep, atol=1e-6)  # at first the identity
    assert np.abs(plain.predict(IMAGES, verbose=0) - logits).max() > 1e-3


@pytest.mark.parametrize("model", [UNet, ResidualUNet, AttentionUNet])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (8,)}, r"input_shape \(8,\): give \(height, width, channels\)"),
        ({"input_shape": (10, 8, 1)}, r"multiples of 4; give \(8, 8\) or \(12, 8\), or fewer levels"),
        ({"num_classes": 0}, "num_classes 0"),
        ({"channels": (4,)}, r"channels \(4,\): give 1 or more for each of two or more levels"),
        ({"dropout": 1.0}, "dropout 1.0"),
    ],
)
def test_bad_arguments(model, arguments, message):
    with pytest.raises(InputError, match=message):
        model(**{"input_shape": (8, 8, 1), "num_classes": 2, "channels": (2, 3, 4)} | arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"convolutions": 0}, "convolutions 0"),
        ({"upsampling": "nearest"}, "upsampling 'nearest': choose 'transposed' or 'linear'"),
        ({"normalization": "layer"}, "normalization 'layer': choose 'batch'"),
        ({"normalization": "instance", "channels": (1, 1, 1, 1)}, "has one place, .* a larger image or fewer levels"),
    ],
)
def test_bad_arguments_of_the_unet(arguments, message):
    with pytest.raises(InputError, match=message):
        UNet(**{"input_shape": (8, 8, 1), "num_classes": 2, "channels": (2, 3)} | arguments)


def test_a_bottleneck_of_one_place():
    with pytest.raises(InputError, match="instance normalisation makes a constant"):
        ResidualUNet((4, 4, 1), 2, channels=(2, 3, 4))
    assert UNet((4, 4, 1), 2, channels=(2, 3, 4), normalization="batch").output_shape == (None, 4, 4, 2)

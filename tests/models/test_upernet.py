import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import Swin, UPerNet, create
from kseq.models.registry import variants
from tests import conformance

random = np.random.default_rng(2)
IMAGES = random.normal(size=(2, 32, 16, 3)).astype("float32")
SMALL = {"channels": 6, "pool_scales": (1, 3), "dropout": 0.0}


def encoder(stages=3):
    """Maps of 1/2, 1/4, … of an image, of 3, 6, … channels."""
    images = x = keras.Input(IMAGES.shape[1:])
    maps = {}
    for i in range(stages):
        x = keras.layers.AveragePooling2D(2, data_format="channels_last")(x)
        x = keras.layers.Dense(3 * 2**i, name=f"stage_{i}")(x)
        maps[f"stage_{i}"] = x
    return keras.Model(images, maps | {"mean": keras.layers.GlobalAveragePooling2D("channels_last")(x)})


def test_conformance(tmp_path):
    conformance.check_model(lambda: UPerNet(encoder(2), 5, **SMALL), IMAGES, tmp_path)


def resize(x, size):
    """Bilinear, corners not aligned: behind the outer places the values stay as they are."""
    for axis, new in enumerate(size, 1):
        old = x.shape[axis]
        places = (np.arange(new) + 0.5) * old / new - 0.5
        x = np.apply_along_axis(lambda row, places=places: np.interp(places, np.arange(len(row)), row), axis, x)
    return x


def pool(x, scale):
    """Means of regions that begin at ⌊i n / s⌋ and end in front of ⌈(i + 1) n / s⌉."""
    for axis in (1, 2):
        n = x.shape[axis]
        regions = [range(i * n // scale, -(-(i + 1) * n // scale)) for i in range(scale)]
        x = np.concatenate([x.take(region, axis).mean(axis, keepdims=True) for region in regions], axis)
    return x


def convolve(x, kernel):
    """Zeros around, correlation with a kernel of 3 × 3."""
    height, width = x.shape[1:3]
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return sum(x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))


def test_it_is_the_equations():
    backbone = encoder()
    model = UPerNet(backbone, 5, **SMALL, auxiliary=True, auxiliary_channels=4)
    for weight in model.weights:
        value = random.normal(size=weight.shape) * 0.6
        weight.assign(np.abs(value) + 0.2 if "variance" in weight.path else value)
    outputs = model.predict(IMAGES, verbose=0)
    maps = backbone.predict(IMAGES, verbose=0)

    def activated(x, name):
        kind = "convolution" if f"{name}_convolution" in [layer.name for layer in model.layers] else "product"
        (kernel,) = model.get_layer(f"{name}_{kind}").get_weights()
        gamma, beta, mean, variance = model.get_layer(f"{name}_norm").get_weights()
        x = convolve(x, kernel) if kind == "convolution" else x @ kernel
        return np.maximum(gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta, 0)

    x = [maps[f"stage_{i}"].astype("float64") for i in range(3)]
    pooled = [x[2], *(resize(activated(pool(x[2], s), f"pooled_{s}"), x[2].shape[1:3]) for s in (1, 3))]
    l2 = activated(np.concatenate(pooled, axis=-1), "lateral_2")
    l1 = activated(x[1], "lateral_1") + resize(l2, x[1].shape[1:3])
    l0 = activated(x[0], "lateral_0") + resize(l1, x[0].shape[1:3])
    fused = [activated(l0, "fused_0"), resize(activated(l1, "fused_1"), (16, 8)), resize(l2, (16, 8))]
    C, c = model.get_layer("logits").get_weights()
    logits = resize(activated(np.concatenate(fused, axis=-1), "fusion") @ C + c, (32, 16))
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5 * np.abs(logits).max())
    C, c = model.get_layer("auxiliary_0").get_weights()
    helper = activated(x[1], "auxiliary") @ C + c
    np.testing.assert_allclose(outputs["auxiliary_0"], helper, atol=1e-5 * np.abs(helper).max())


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def head_parameters(dims, channels, classes, auxiliary_channels):
    """Kernels, two numbers a channel for each normalisation, and the head's kernels and biases."""
    maps, norm = len(dims), 2 * channels
    pooling = 4 * (dims[-1] * channels + norm) + (dims[-1] + 4 * channels) * channels * 9 + norm
    lateral = sum(dim * channels + norm + channels**2 * 9 + norm for dim in dims[:-1])
    fusion = maps * channels * channels * 9 + norm + channels * classes + classes
    auxiliary = dims[-2] * auxiliary_channels * 9 + 2 * auxiliary_channels + auxiliary_channels * classes + classes
    return pooling + lateral + fusion + auxiliary


@pytest.mark.parametrize(("name", "millions"), [("swin_t", 60), ("swin_s", 81), ("swin_b", 121)])
def test_published_parameter_counts(name, millions):
    """Of the encoder from that of the classifier; the large models are not built."""
    dims = [variants()[name].arguments["embed_dim"] * 2**stage for stage in range(4)]
    classifier = dims[-1] * 1000 + 1000
    norms = sum(2 * dim for dim in dims[:-1])
    encoder = variants()[name].parameters - classifier + norms
    assert round((encoder + head_parameters(dims, 512, 150, 256)) / 1e6) == millions


def test_on_swin():
    """Its heads are counted in the test above; here the count is that of the model."""
    sizes = {"embed_dim": 4, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2}
    backbone = create("swin_t", input_shape=(64, 32, 3), num_classes=0, features=True, **sizes)
    model = UPerNet(backbone, 3, channels=6, auxiliary=True, auxiliary_channels=5)
    shapes = {name: tuple(x.shape) for name, x in model.output.items()}
    assert shapes == {"logits": (None, 64, 32, 3), "auxiliary_0": (None, 4, 2, 3)}
    assert trainable(model) == trainable(backbone) + head_parameters((4, 8, 16, 32), 6, 3, 5)
    assert model.get_layer("stage_0_block_0") is backbone.get_layer("stage_0_block_0")


def test_volumes():
    sizes = {"patch_size": 2, "embed_dim": 4, "depths": (1, 1), "num_heads": (1, 1), "window_size": 2}
    model = UPerNet(Swin((8, 8, 4, 1), 0, **sizes, features=True), 3, channels=4, pool_scales=(1, 2))
    assert model.output_shape == (None, 8, 8, 4, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes 0: give 1 or more"),
        ({"channels": 0}, "channels 0"),
        ({"auxiliary_channels": 0}, "auxiliary_channels 0"),
        ({"pool_scales": (1, 0)}, r"pool_scales \(1, 0\): give 1 or more regions"),
        ({"dropout": 1}, "dropout 1: give a share"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        UPerNet(encoder(2), **{"num_classes": 5} | arguments)


def test_maps_of_one_resolution():
    images = keras.Input((8, 8, 3))
    maps = [keras.layers.Dense(units)(images) for units in (2, 4)]
    with pytest.raises(InputError, match=r"\[\(None, 8, 8, 2\), \(None, 8, 8, 4\)\]; .* a resolution each"):
        UPerNet(keras.Model(images, maps), 5, **SMALL)


def test_an_encoder_of_one_map():
    with pytest.raises(InputError, match=r"backbone .* \[\(None, 16, 8, 3\)\]; give a model that returns two or more"):
        UPerNet(encoder(1), 5)

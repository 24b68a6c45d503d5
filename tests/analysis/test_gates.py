import re

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from kseq.analysis import attention_heads, pixel_attention, skip_gates
from kseq.errors import InputError
from kseq.layers import NonLocalBlock
from kseq.models import SETR, SwinUnet, UNet, UTransformer

SHAPE, HEADS = (16, 24, 1), 2
UNET = {"channels": (4, 6, 8)}


def random_weights(model):
    """Random weights, large enough for gates and attention that are not uniform."""
    random = np.random.default_rng(1)
    model.set_weights([random.normal(len(w.shape) == 1, 0.5, w.shape) for w in model.weights])
    for norm in (w for w in model.weights if "variance" in w.path):
        norm.assign(np.ones(norm.shape))
    return model


@pytest.fixture(scope="module")
def transformer():
    return random_weights(UTransformer(SHAPE, 3, **UNET, num_heads=HEADS, max_positions=24, normalization=None))


@pytest.fixture(scope="module")
def unet():
    return random_weights(UNet(SHAPE, 3, **UNET, non_local=True, attention_gates=True))


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=SHAPE).astype("float32")


@pytest.fixture
def axis():
    return Figure(layout="constrained").subplots()


def inside(model, image, *tensors) -> list[np.ndarray]:
    """The values of tensors of a model for an image."""
    inner = keras.Model(model.inputs, dict(enumerate(tensors)))
    return [np.asarray(value)[0] for value in inner.predict(image[None], verbose=0).values()]


def softmax(logits):
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


# Gates


@pytest.mark.parametrize(
    ("name", "gates"),
    [
        ("transformer", {"cross_attention_1": (8, 12), "cross_attention_0": (16, 24)}),
        ("unet", {"attention_gate_1": (8, 12), "attention_gate_0": (16, 24)}),
    ],
)
def test_gates_are_what_the_skips_are_multiplied_with(request, image, name, gates):
    model = request.getfixturevalue(name)
    maps = skip_gates(model, image)
    assert {gate: values.shape for gate, values in maps.items()} == gates
    assert list(maps) == list(gates)  # the deepest first
    for gate, values in maps.items():
        product = model.get_layer(f"gated_skip_{gate[-1]}")
        skip, gated = inside(model, image, product.input[0], product.output)
        # Channel by channel Z ⊙ skip is between 0 and the skip; with a gate of one channel, the mean is that channel.
        assert (np.abs(gated) <= np.abs(skip) * 1.00001).all()
        if name == "unet":
            np.testing.assert_allclose(gated, values[..., None] * skip, rtol=1e-4, atol=1e-6)
        else:
            (Z,) = inside(model, image, model.get_layer(gate).output)
            np.testing.assert_allclose(gated, Z * skip, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(values, Z.mean(axis=-1), rtol=1e-4)
        assert np.ptp(values) > 0.01


def test_gates_are_drawn_over_the_image(transformer, image, axis):
    maps = skip_gates(transformer, image, axis=axis)
    axis.figure.canvas.draw()
    assert [text.get_text() for text in axis.texts if text.get_text()] == ["cross attention 1", "cross attention 0"]
    assert len(axis.images) == 2 * len(maps)
    highest = maps["cross_attention_0"]
    shares = (highest - highest.min()) / np.ptp(highest)
    np.testing.assert_allclose(axis.images[-1].get_array(), shares, atol=1e-5)


# Attention of a pixel


def test_self_attention_of_the_place_of_a_pixel(transformer, image):
    layer = transformer.get_layer("self_attention")
    (tokens,) = inside(transformer, image, layer.input)  # (24, 8): a grid of 4 × 6
    query, key = (
        (tokens.astype("float64") @ np.asarray(keras.ops.convert_to_numpy(product.kernel))).reshape(24, HEADS, 4)
        for product in (layer.query_projection, layer.key_projection)
    )
    weights = softmax(np.einsum("qhd,khd->hqk", query, key) / 2)  # √4
    maps = pixel_attention(transformer, image, (9, 23))["self_attention"]
    np.testing.assert_allclose(maps, weights[:, 2 * 6 + 5].reshape(HEADS, 4, 6), atol=1e-5)
    assert np.ptp(maps) > 0.01


def test_cross_attention_on_the_grid_of_each_gate(transformer, image):
    maps = pixel_attention(transformer, image, (9, 23))
    assert {name: values.shape for name, values in maps.items()} == {
        "self_attention": (HEADS, 4, 6),
        "cross_attention_1": (HEADS, 4, 6),
        "cross_attention_0": (HEADS, 4, 6),  # 8 × 12 places are more than 24
    }
    for values in maps.values():
        np.testing.assert_allclose(values.sum(axis=(1, 2)), 1, atol=1e-5)
    gate = transformer.get_layer("cross_attention_0")
    skip, deep = inside(transformer, image, *gate.input)
    _, weights = gate([skip[None], deep[None]], return_attention_scores=True)
    expected = keras.ops.convert_to_numpy(weights)[0, :, 2 * 6 + 5].reshape(HEADS, 4, 6)
    np.testing.assert_allclose(maps["cross_attention_0"], expected, atol=1e-5)


def test_a_non_local_block(unet, image):
    block = unet.get_layer("non_local")
    (x,) = inside(unet, image, block.input)
    x = x.reshape(24, 8).astype("float64")
    kernel = {
        part: [np.asarray(keras.ops.convert_to_numpy(w)) for w in part.weights] for part in (block.theta, block.phi)
    }
    theta = x @ kernel[block.theta][0] + kernel[block.theta][1]
    phi = x @ kernel[block.phi][0]
    weights = softmax(theta @ phi.T / 2)
    maps = pixel_attention(unet, image, (0, 4))
    assert list(maps) == ["non_local"]
    np.testing.assert_allclose(maps["non_local"][0], weights[1].reshape(4, 6), atol=1e-4)


def test_a_non_local_block_that_looks_at_a_pooled_map():
    inputs = keras.Input((4, 16, 3))
    block = NonLocalBlock(pool=True, name="block")
    image = np.random.default_rng(3).normal(size=(4, 16, 3)).astype("float32")
    (weights,) = pixel_attention(keras.Model(inputs, block(inputs)), image, (1, 7)).values()
    assert weights.shape == (1, 2, 8)
    expected = keras.ops.convert_to_numpy(block(image[None], return_attention_scores=True)[1])
    np.testing.assert_allclose(weights.ravel(), expected.reshape(64, 16)[16 + 7], atol=1e-6)


def test_encoder_blocks_as_attention_heads_has_them(image):
    sizes = {"patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": HEADS, "channels": 4}
    model = SETR(SHAPE, 3, **sizes)  # with a class token
    maps = pixel_attention(model, image, (9, 20))
    assert list(maps) == ["encoder_block_0", "encoder_block_1"]
    for block, values in enumerate(maps.values()):
        np.testing.assert_allclose(values, attention_heads(model, image, block, (1, 2)), atol=1e-6)


def test_the_pixel_is_marked_in_every_tile(transformer, image, axis):
    maps = pixel_attention(transformer, image, (9, 23), axis=axis)
    axis.figure.canvas.draw()
    labels = ["image", "self attention", "cross attention 1", "cross attention 0"]
    assert [text.get_text() for text in axis.texts if text.get_text()] == labels
    marks = sorted((float(line.get_ydata()[0]), float(line.get_xdata()[0])) for line in axis.lines)
    assert len(marks) == 1 + len(maps)
    assert marks[0] == (9.5, 23.5)
    assert np.asarray(axis.images[len(marks)].get_array()).max() == 0  # the first is the image alone


def test_volumes():
    model = random_weights(UTransformer((4, 8, 8, 1), 2, channels=(6, 12), num_heads=HEADS, normalization=None))
    image = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype("float32")
    one, other = Figure().subplots(2, 1)
    assert pixel_attention(model, image, (3, 0, 7), axis=one)["self_attention"].shape == (HEADS, 2, 4, 4)
    assert skip_gates(model, image, axis=other)["cross_attention_0"].shape == (4, 8, 8)
    np.testing.assert_allclose(
        one.images[0].get_array() / 0.6, (image[3, ..., 0] - image[3].min()) / np.ptp(image[3]), atol=1e-5
    )


# What is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: skip_gates(None, x), "model None: no AttentionGate or CrossAttentionGate among its layers; give"),
        (lambda m, x: skip_gates(UNet(SHAPE, 2, **UNET), x), "model unet: no AttentionGate or CrossAttentionGate"),
        (lambda m, x: pixel_attention(UNet(SHAPE, 2, **UNET), x, (0, 0)), "model unet: no attention between places"),
        (lambda m, x: skip_gates(m, x[None]), "image of shape (1, 16, 24, 1): give one of shape (16, 24, 1)"),
        (lambda m, x: pixel_attention(m, x, (16, 0)), "pixel (16, 0): not in the image; give an index for each axis"),
        (lambda m, x: pixel_attention(m, x, (-1, 0)), "pixel (-1, 0): not in the image"),
        (lambda m, x: pixel_attention(m, x, (1,)), "pixel (1,): not in the image"),
    ],
)
def test_bad_arguments(transformer, image, call, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call(transformer, image)
    assert "\n" not in str(caught.value)


def test_windows_that_see_a_part_are_no_such_attention(image):
    swin = {"patch_size": 2, "embed_dim": 4, "depths": (1, 1), "num_heads": (1, 1), "window_size": 4}
    with pytest.raises(InputError, match="model swin_unet: no attention between places among its layers"):
        pixel_attention(SwinUnet(SHAPE, 2, **swin), image, (0, 0))

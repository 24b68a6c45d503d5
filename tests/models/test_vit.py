import math

import keras
import numpy as np
import pytest

from kseq.errors import InputError
from kseq.models import ViT, create
from kseq.models.registry import variants
from tests import conformance
from tests.conftest import thinned, torch_only
from tests.layers import attention_reference as reference

random = np.random.default_rng(7)
IMAGES = random.normal(size=(2, 12, 8, 3)).astype("float32")
VOLUMES = random.normal(size=(2, 4, 8, 8, 1)).astype("float32")
SMALL = {"patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3}

CONFIGURATIONS = {
    "default": (IMAGES, {}),
    "tanh": (IMAGES, {"activation": "gelu_tanh"}),
    "mean": (IMAGES, {"pooling": "mean"}),
    "sinusoidal": (IMAGES, {"position": "sinusoidal", "patch_size": (3, 2)}),
    "dropped": (IMAGES, {"dropout": 0.1, "attention_dropout": 0.1, "drop_path": 0.2}),
    "remat": (IMAGES, {"remat": True, "drop_path": 0.2}),
    "3-D": (VOLUMES, {"patch_size": (2, 4, 4)}),
    "3-D sinusoidal mean": (VOLUMES, {"pooling": "mean", "position": "sinusoidal"}),
}


@pytest.mark.parametrize("name", thinned(CONFIGURATIONS))
def test_conformance(name, tmp_path):
    images, arguments = CONFIGURATIONS[name]
    conformance.check_model(lambda: ViT(images.shape[1:], 5, **SMALL | arguments), images, tmp_path)


@torch_only
@pytest.mark.parametrize("name", [name for name in variants() if name.startswith("vit")])
def test_published_parameter_counts(name):
    """Counted from shapes alone: the weights of the largest would take 2.5 GB."""
    with keras.device("meta") if keras.backend.backend() == "torch" else keras.name_scope("count"):
        arguments = variants()[name].arguments
        blocks = {depth: ViT(**arguments | {"depth": depth}).count_params() for depth in (1, 2)}
    a_block = blocks[2] - blocks[1]
    assert blocks[1] + (arguments["depth"] - 1) * a_block == variants()[name].parameters


def test_arguments_of_a_variant_can_be_others():
    assert create("vit_ti16", num_classes=7, input_shape=(32, 32, 1)).output_shape == (None, 7)


def test_it_is_the_equations():
    model = ViT(IMAGES.shape[1:], 5, **SMALL)
    weights = [random.normal(size=w.shape) * 0.3 for w in model.get_weights()]
    model.set_weights(weights)
    E, b, token, positions, *rest = weights

    def norm(x):
        gamma, beta = rest.pop(0), rest.pop(0)
        x = x - x.mean(axis=-1, keepdims=True)
        return gamma * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) + beta

    patches = IMAGES.reshape(2, 3, 4, 2, 4, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 48)
    z = np.concatenate([np.tile(token, (2, 1, 1)), patches @ E + b], axis=1) + positions
    everywhere = np.ones((2, 3, 7, 7), bool)
    for block in model.layers:
        if not block.name.startswith("encoder_block"):
            continue
        rest = [w.astype("float64") for w in block.norms["attention"].get_weights()]
        attended, _ = reference.multi_head(block.attention.get_weights(), 3, *[norm(z)] * 3, everywhere)
        z = z + attended
        rest = [w.astype("float64") for w in block.norms["feed_forward"].get_weights()]
        W1, b1, W2, b2 = block.feed_forward.get_weights()
        hidden = norm(z) @ W1 + b1
        z = z + hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2))) @ W2 + b2
    rest = list(model.get_layer("encoder_norm").get_weights())
    W, c = model.get_layer("logits").get_weights()
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), norm(z)[:, 0] @ W + c, atol=1e-4)


@pytest.mark.parametrize(("images", "pooling"), [(IMAGES, "token"), (IMAGES, "mean"), (VOLUMES, "token")])
def test_features_are_the_states_behind_the_blocks(images, pooling):
    arguments = SMALL | {"pooling": pooling}
    model, logits = (ViT(images.shape[1:], 5, **arguments, features=features) for features in (True, False))
    logits.set_weights(model.get_weights())
    states = model.predict(images, verbose=0)
    np.testing.assert_array_equal(states["logits"], logits.predict(images, verbose=0))
    grid = tuple(size // 4 for size in images.shape[1:-1])
    assert {k: v.shape for k, v in states.items() if k != "logits"} == {
        name: (2, *grid, 12) for name in ("block_0", "block_1", "patches")
    }
    between = keras.Model(logits.inputs, logits.get_layer("encoder_block_0").output)
    tokens = between.predict(images, verbose=0)[:, int(pooling == "token") :]
    np.testing.assert_array_equal(states["block_0"].reshape(tokens.shape), tokens)


def test_without_a_head_the_answer_is_what_the_head_reads():
    bare, whole = (ViT(IMAGES.shape[1:], classes, **SMALL) for classes in (0, 5))
    bare.set_weights(whole.get_weights()[:-2])
    W, c = whole.get_layer("logits").get_weights()
    pooled = bare.predict(IMAGES, verbose=0)
    assert pooled.shape == (2, 12)
    np.testing.assert_allclose(pooled @ W + c, whole.predict(IMAGES, verbose=0), atol=1e-5)
    states = ViT(IMAGES.shape[1:], 0, **SMALL, features=True).predict(IMAGES, verbose=0)
    assert states["pooled"].shape == (2, 12)


@pytest.mark.parametrize("policy", thinned(["mixed_bfloat16", "mixed_float16"]))
def test_training_in_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    model = ViT(IMAGES.shape[1:], 5, **SMALL)
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, classes = np.tile(IMAGES, (4, 1, 1, 1)), np.array([0, 3] * 4)
    losses = model.fit(images, classes, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


def test_clones_and_other_ways_to_run_give_the_same():
    model = ViT(IMAGES.shape[1:], 5, **SMALL)
    expected = model.predict(IMAGES, verbose=0)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone.predict(IMAGES, verbose=0), expected)
    targets, steps = np.array([1, 4]), []
    for way in ({"run_eagerly": True}, {"jit_compile": keras.backend.backend() != "torch"}):
        clone.set_weights(model.get_weights())
        clone.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True), **way)
        clone.fit(IMAGES, targets, verbose=0)
        steps.append(clone.get_weights())
    for eager, compiled in zip(*steps, strict=True):
        np.testing.assert_allclose(eager, compiled, atol=1e-5)


def test_means_do_not_follow_the_global_image_format():
    keras.config.set_image_data_format("channels_first")
    try:
        model = ViT(IMAGES.shape[1:], 5, **SMALL, pooling="mean")
    finally:
        keras.config.set_image_data_format("channels_last")
    assert model.get_layer("logits").kernel.shape == (12, 5)


def test_stochastic_depth_rises_to_the_last_block():
    model = ViT(IMAGES.shape[1:], 5, **SMALL | {"depth": 3}, drop_path=0.2)
    assert [model.get_layer(f"encoder_block_{i}").drop_path for i in range(3)] == [0, 0.1, 0.2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": (12, 8)}, r"input_shape \(12, 8\): give \(height, width, channels\)"),
        ({"input_shape": (None, 8, 3)}, r"input_shape \(None, 8, 3\)"),
        ({"num_classes": -1}, "num_classes -1: give 0 or more"),
        ({"depth": 0}, "depth 0"),
        ({"num_heads": 5}, "num_heads 5: does not divide"),
        ({"patch_size": 16}, "larger than the input"),
        ({"patch_size": 5}, "does not divide the input"),
        ({"pooling": "max"}, "pooling 'max': choose 'token' or 'mean'"),
        ({"position": "relative"}, "position 'relative'"),
        ({"dropout": 1.0}, "dropout 1.0"),
        ({"drop_path": -0.1}, "drop_path"),
        ({"position": "sinusoidal", "embed_dim": 18}, "embed_dim 18"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        ViT(**{"input_shape": (12, 8, 3), "num_classes": 5} | SMALL | arguments)


def test_the_error_of_patches_is_not_wrapped_by_keras():
    with pytest.raises(InputError) as error:
        ViT((28, 28, 1), 10)
    assert str(error.value).startswith("patch_size (16, 16): does not divide the input of (28, 28)")
    assert "\n" not in str(error.value)

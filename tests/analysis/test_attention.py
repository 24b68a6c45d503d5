import re
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure

from kseq.analysis import (
    attention_distance,
    attention_heads,
    attention_maps,
    attention_rollout,
    class_attention,
)
from kseq.errors import InputError
from kseq.layers import PatchEmbedding, TransformerEncoderBlock
from kseq.models import ViT

ROOT = Path(__file__).parents[2]
SHAPE, PATCH, GRID = (6, 12, 3), (2, 3), (3, 4)
BATCH, DEPTH, HEADS = 2, 3, 2


def vit(shape=SHAPE, patch_size=PATCH, **arguments):
    """A vision transformer whose random weights are large enough for attention that is not uniform."""
    model = ViT(shape, 5, patch_size=patch_size, **{"embed_dim": 12, "depth": DEPTH, "num_heads": HEADS} | arguments)
    random = np.random.default_rng(1)
    model.set_weights([random.normal(w.path.endswith("gamma"), 0.5, size=w.shape) for w in model.weights])
    return model


def volumes(**arguments):
    return vit((4, 6, 8, 1), (2, 3, 4), **arguments)  # grid 2 × 2 × 2


def data(model, batch=BATCH):
    return np.random.default_rng(0).normal(size=(batch, *model.input_shape[1:])).astype("float32")


@pytest.fixture(scope="module")
def model():
    return vit()


@pytest.fixture
def images(model):
    return data(model)


@pytest.fixture
def axis():
    return Figure(layout="constrained").subplots()


def array(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def drawn(axis) -> list[np.ndarray]:
    """What its images hold; it must also render."""
    axis.figure.canvas.draw()
    return [np.asarray(image.get_array()) for image in axis.images]


def shares(maps) -> np.ndarray:
    """0 at the lowest value of a map, 1 at its highest."""
    return (maps - maps.min()) / np.ptp(maps)


# The weights


def weights_by_hand(block, x) -> np.ndarray:
    """softmax(Q Kᵀ / √d) of LN(x), in float64: `(batch, heads, tokens, tokens)`."""
    weights = {w.path.split(block.name + "/")[1]: array(w).astype("float64") for w in block.weights}
    x = x.astype("float64")
    x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + block.epsilon)
    x = x * weights["attention_norm/gamma"] + weights["attention_norm/beta"]
    q, k = (x @ weights[f"attention/{part}/kernel"] + weights[f"attention/{part}/bias"] for part in ("query", "key"))
    q, k = (np.stack(np.split(part, block.num_heads, axis=-1), axis=1) for part in (q, k))
    logits = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("block", range(DEPTH))
def test_the_weights_are_those_of_the_equation(model, images, block):
    layer = model.get_layer(f"encoder_block_{block}")
    x = array(keras.Model(model.input, layer.input)(images))
    maps = attention_maps(model, images)
    assert (maps.shape, maps.dtype) == ((DEPTH, BATCH, HEADS, 13, 13), "float32")
    np.testing.assert_allclose(maps[block], weights_by_hand(layer, x), atol=1e-5)
    assert maps[block].max() > 0.5  # far from uniform


@pytest.mark.parametrize("make", [vit, volumes])
@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_the_weights_of_a_query_sum_to_one(make, pooling):
    model = make(pooling=pooling)
    maps = attention_maps(model, data(model))
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-5)


def test_a_large_batch_is_taken_in_pieces(model):
    images = data(model, 35)
    maps = attention_maps(model, images)
    for n in (0, 15, 16, 34):
        np.testing.assert_allclose(maps[:, n], attention_maps(model, images[n : n + 1])[:, 0], atol=1e-5)


def test_the_model_stays_as_it_is(model, images):
    before, outputs = model.get_weights(), array(model(images))
    nodes = {layer.name: layer.input for layer in model.layers}
    attention_maps(model, images)
    assert all(layer.input is nodes[layer.name] for layer in model.layers)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(array(model(images)), outputs, atol=1e-6)


def test_dropout_is_off():
    model = vit(dropout=0.5, attention_dropout=0.5, drop_path=0.5)
    images = data(model)
    np.testing.assert_array_equal(attention_maps(model, images), attention_maps(model, images))
    np.testing.assert_allclose(attention_maps(model, images), attention_maps(vit(), images), atol=1e-5)


def test_features_as_outputs_change_nothing(model, images):
    np.testing.assert_allclose(attention_maps(vit(features=True), images), attention_maps(model, images), atol=1e-6)


def test_half_precision(model, images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    half = vit()
    maps = attention_maps(half, images)
    assert maps.dtype == "float32"
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=0.03)
    assert np.abs(maps - attention_maps(model, images)).mean() < 0.03


def test_blocks_keep_their_masks_and_their_causality():
    words = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(9, 8, mask_zero=True)(words)
    x = TransformerEncoderBlock(2, 8)(x)
    x, weights = TransformerEncoderBlock(2, 8)(x, use_causal_mask=True, return_attention_scores=True)
    maps = attention_maps(keras.Model(words, [x, weights]), np.array([[3, 1, 4, 1, 0, 0]]))
    assert (maps[..., 4:] == 0).all()
    assert (maps[1] * np.triu(np.ones((6, 6)), 1) == 0).all()
    assert (maps[0, ..., :4] > 0).all()


# Heads


@pytest.mark.parametrize("block", [0, -1, -3])
@pytest.mark.parametrize("query", [None, 0, 7, (2, 3), [1, 0]])
def test_the_heads_of_a_query(model, images, block, query):
    weights = attention_maps(model, images)[block, 1]
    row = 0 if query is None else 1 + (query if isinstance(query, int) else query[0] * GRID[1] + query[1])
    maps = attention_heads(model, images[1], block, query)
    np.testing.assert_allclose(maps, weights[:, row, 1:].reshape(HEADS, *GRID), atol=1e-6)


def test_without_a_class_token_it_is_the_mean_of_the_queries():
    model = vit(pooling="mean")
    images = data(model)
    weights = attention_maps(model, images)
    mean = weights[-1, 0].mean(axis=1).reshape(HEADS, *GRID)
    np.testing.assert_allclose(attention_heads(model, images[0]), mean, atol=1e-6)
    np.testing.assert_allclose(class_attention(model, images[0]), mean.mean(axis=0), atol=1e-6)
    corner = weights[-1, 0, :, 0].reshape(HEADS, *GRID)
    np.testing.assert_allclose(attention_heads(model, images[0], query=0), corner, atol=1e-6)


def test_heads_are_drawn_on_one_scale(model, images, axis):
    maps = attention_heads(model, images[0], axis=axis)
    for tile, one in zip(drawn(axis), maps, strict=True):
        np.testing.assert_array_equal(tile, one)
    assert {image.get_clim() for image in axis.images} == {(0, maps.max())}
    assert [text.get_text() for text in axis.texts] == ["head 0", "head 1"]
    assert not axis.patches


def test_heads_over_the_image_frame_the_query(model, images, axis):
    maps = attention_heads(model, images[0], 0, (2, 1), overlay=True, axis=axis)
    below, above = np.split(np.stack([tile.mean() for tile in drawn(axis)]), 2)
    assert len(below) == len(above) == HEADS
    for image, one in zip(axis.images[HEADS:], maps, strict=True):
        np.testing.assert_allclose(image.get_array(), shares(one), atol=1e-6)
        np.testing.assert_allclose(image.get_alpha() / image.get_alpha().max(), shares(one), atol=1e-6)
        left, right, bottom, top = image.get_extent()
        assert (bottom - top, right - left) == pytest.approx(SHAPE[:2])
    first, second = sorted(frame.get_bbox().bounds for frame in axis.patches)
    assert first == (1 * 3, 2 * 2, 3, 2)  # of the patch in row 2, column 1: left, top, width, height
    assert second[0] > SHAPE[1]


def test_class_attention_is_drawn_over_the_image(model, images, axis):
    weights = class_attention(model, images[0], 1, axis=axis)
    expected = attention_maps(model, images)[1, 0, :, 0, 1:].mean(axis=0).reshape(GRID)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    image, above = drawn(axis)
    assert image.shape == SHAPE  # in colour
    assert image.min() == 0
    np.testing.assert_allclose(image / image.max(), shares(images[0]), atol=1e-6)
    np.testing.assert_allclose(above, shares(weights), atol=1e-6)


# Rollout


def rollout_by_hand(maps, residual=0.5, fuse=np.mean, discard=0) -> np.ndarray:
    """One image, `(blocks, heads, tokens, tokens)` → `(tokens, tokens)`, entry by entry."""
    tokens = maps.shape[-1]
    joint = np.eye(tokens)
    for heads in maps.astype("float64"):
        A = np.empty((tokens, tokens))
        for query in range(tokens):
            row = np.array([fuse(heads[:, query, key]) for key in range(tokens)])
            for key in sorted(range(tokens), key=lambda key: row[key])[:discard]:
                row[key] = 0
            row = (1 - residual) * row
            row[query] += residual
            A[query] = row / row.sum()
        joint = A @ joint
    return joint


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"residual": 0.2},
        {"head_fusion": "max", "discard_ratio": 0.5},
        {"head_fusion": "min", "residual": 0.7},
        {"discard_ratio": 0.9, "residual": 0},
    ],
)
@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_the_rollout_is_the_product_of_the_blocks(arguments, pooling):
    model = vit(pooling=pooling)
    images = data(model, 18)
    maps = attention_maps(model, images)
    found = attention_rollout(model, images, **arguments)
    assert found.shape == (18, *GRID)
    fuse = {"mean": np.mean, "max": np.max, "min": np.min}[arguments.get("head_fusion", "mean")]
    discard = int(arguments.get("discard_ratio", 0) * maps.shape[-1])
    for n in (0, 17):
        joint = rollout_by_hand(maps[:, n], arguments.get("residual", 0.5), fuse, discard)
        row = joint[0, 1:] if pooling == "token" else joint.mean(axis=0)
        np.testing.assert_allclose(found[n], row.reshape(GRID), atol=1e-5)


def test_the_rollout_of_uniform_weights():
    model = uniform()
    found = attention_rollout(model, data(model))
    np.testing.assert_allclose(found, (1 - 0.5**DEPTH) / 13, rtol=1e-5)  # of 12 patches and the class token


def test_the_rollouts_are_drawn_over_their_images(model, images, axis):
    maps = attention_rollout(model, images, axis=axis)
    *_, first, second = drawn(axis)
    np.testing.assert_allclose(first, shares(maps[0]), atol=1e-6)
    np.testing.assert_allclose(second, shares(maps[1]), atol=1e-6)
    assert len(axis.images) == 2 * BATCH


# Distance


def uniform(**arguments):
    """Queries of 0 give all keys the same weight."""
    model = vit(**arguments)
    for block in range(DEPTH):
        query = model.get_layer(f"encoder_block_{block}").attention.query_projection
        query.set_weights([np.zeros(w.shape) for w in query.get_weights()])
    return model


def mean_distance(grid, patch) -> float:
    places = [np.array(place) * patch for place in np.ndindex(*grid)]
    return float(np.mean([np.linalg.norm(one - other) for one in places for other in places]))


@pytest.mark.parametrize("pooling", ["token", "mean"])
@pytest.mark.parametrize(("shape", "patch", "grid"), [(SHAPE, PATCH, GRID), ((4, 6, 8, 1), (2, 3, 4), (2, 2, 2))])
def test_the_distance_of_uniform_weights_is_that_of_all_pairs(shape, patch, grid, pooling):
    model = uniform(shape=shape, patch_size=patch, pooling=pooling)
    distances = attention_distance(model, data(model))
    np.testing.assert_allclose(distances, np.full((DEPTH, HEADS), mean_distance(grid, patch)), rtol=1e-5)


def test_a_head_that_looks_at_its_own_patch_has_distance_0():
    model = ViT((4, 4, 1), 5, patch_size=2, embed_dim=8, depth=1, num_heads=1)
    model.get_layer("position_encoding").set_weights([1000 * np.eye(5, 8)])  # each token a direction of its own
    attention = model.get_layer("encoder_block_0").attention
    for product in (attention.query_projection, attention.key_projection):
        product.set_weights([10 * np.eye(8), np.zeros(8)])
    images = data(model)
    np.testing.assert_allclose(attention_maps(model, images)[0, :, 0], np.stack([np.eye(5)] * BATCH), atol=1e-6)
    np.testing.assert_allclose(attention_distance(model, images), 0, atol=1e-5)


def test_the_distance_leaves_the_class_token_out(model):
    images = data(model, 18)
    weights = attention_maps(model, images)[..., 1:, 1:].astype("float64")
    expected = np.zeros((DEPTH, HEADS))
    for i, one in enumerate(np.ndindex(*GRID)):
        for j, other in enumerate(np.ndindex(*GRID)):
            distance = np.hypot(*((a - b) * size for a, b, size in zip(one, other, PATCH, strict=True)))
            expected += distance * (weights[..., i, j] / weights[..., i, :].sum(axis=-1)).mean(axis=1) / 12
    np.testing.assert_allclose(attention_distance(model, images), expected, rtol=1e-4)


def test_the_distances_are_dots_over_the_blocks(model, images, axis):
    distances = attention_distance(model, images, axis=axis)
    line, *heads = axis.lines
    assert set(line.get_ydata()) == {mean_distance(GRID, PATCH)}
    np.testing.assert_array_equal(np.transpose([head.get_ydata() for head in heads]), distances)
    np.testing.assert_array_equal(heads[0].get_xdata(), range(DEPTH))
    assert axis.get_ylim()[1] > max(distances.max(), mean_distance(GRID, PATCH))
    assert "pixels" in axis.get_ylabel()
    drawn(axis)


# Volumes


def test_maps_of_volumes(axis):
    model = volumes()
    images = data(model)
    assert attention_heads(model, images[0], query=(1, 0, 1)).shape == (HEADS, 2, 2, 2)
    assert class_attention(model, images[0]).shape == (2, 2, 2)
    joint = rollout_by_hand(attention_maps(model, images)[:, 1])
    np.testing.assert_allclose(attention_rollout(model, images)[1], joint[0, 1:].reshape(2, 2, 2), atol=1e-5)
    attention_distance(model, images, axis=axis)
    assert "voxels" in axis.get_ylabel()


def test_of_volumes_the_middle_slice_is_drawn_or_that_of_the_query():
    model = volumes()
    image = data(model)[0]
    for query, at in ((None, 1), ((0, 1, 1), 0), ((1, 0, 1), 1)):
        axis = Figure().subplots()
        maps = attention_heads(model, image, query=query, overlay=True, axis=axis)
        below, _, above, _ = drawn(axis)
        np.testing.assert_allclose(above, shares(maps[0, at]), atol=1e-6)
        np.testing.assert_allclose(below / below.max(), shares(image[2 * at + 1, ..., 0]), atol=1e-6)
        assert len(axis.patches) == (0 if query is None else HEADS)


# What is refused


def no_patches():
    tokens = keras.Input((4, 8))
    return keras.Model(tokens, TransformerEncoderBlock(2, 8)(tokens), name="text")


def no_blocks():
    image = keras.Input((4, 4, 1))
    return keras.Model(image, PatchEmbedding(8, 2)(image), name="patches")


def unequal_blocks():
    tokens = keras.Input((4, 8))
    return keras.Model(tokens, TransformerEncoderBlock(4, 8)(TransformerEncoderBlock(2, 8)(tokens)), name="unequal")


def two_inputs():
    one, other = keras.Input((4, 8)), keras.Input((4, 8))
    return keras.Model([one, other], TransformerEncoderBlock(2, 8)(one + other), name="two")


def one_axis():
    series = keras.Input((8, 1))
    return keras.Model(series, TransformerEncoderBlock(2, 8)(PatchEmbedding(8, 2)(series)), name="series")


def fewer_tokens():
    image = keras.Input((4, 4, 1))
    x = keras.layers.Reshape((4, 8))(PatchEmbedding(8, 2)(image))
    return keras.Model(image, TransformerEncoderBlock(2, 8)(x[:, :3]), name="fewer")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, x: attention_maps(None, x), "model None: a NoneType; give a functional keras.Model"),
        (lambda m, x: attention_maps(keras.Sequential(name="s"), x), "model s: a Sequential; give a functional"),
        (lambda m, x: attention_maps(no_blocks(), x), "model patches: no TransformerEncoderBlock among its layers"),
        (lambda m, x: attention_maps(two_inputs(), x), "model two: has 2 inputs; give one with a single input"),
        (
            lambda m, x: attention_maps(unequal_blocks(), np.ones((2, 4, 8))),
            "model unequal: its blocks have weights of (2, 4, 4), (4, 4, 4); give one with equal blocks",
        ),
        (lambda m, x: attention_maps(m, x[0]), "images of shape (6, 12, 3): give ('batch', 6, 12, 3)"),
        (lambda m, x: attention_maps(m, x[:0]), "images of shape (0, 6, 12, 3): give ('batch', 6, 12, 3)"),
        (lambda m, x: attention_rollout(m, x[:, 1:]), "images of shape (2, 5, 12, 3): give ('batch', 6, 12, 3)"),
        (lambda m, x: attention_heads(m, x), "images of shape (1, 2, 6, 12, 3): give ('batch', 6, 12, 3); a function"),
        (lambda m, x: attention_heads(m, x[0], 3), "block 3: the model has 3; give -3 to 2"),
        (lambda m, x: class_attention(m, x[0], -4), "block -4: the model has 3; give -3 to 2"),
        (
            lambda m, x: attention_heads(m, x[0], query=12),
            "query 12: no patch of the grid (3, 4); give an index from 0",
        ),
        (lambda m, x: attention_heads(m, x[0], query=-1), "query -1: no patch of the grid (3, 4)"),
        (lambda m, x: attention_heads(m, x[0], query=(1, 4)), "query (1, 4): no patch of the grid (3, 4)"),
        (lambda m, x: attention_heads(m, x[0], query=(1, 1, 1)), "a place from (0, 0) to (2, 3), or None"),
        (lambda m, x: attention_rollout(no_patches(), x), "model text: no PatchEmbedding among its layers"),
        (lambda m, x: attention_distance(None, x), "model None: no PatchEmbedding among its layers"),
        (
            lambda m, x: attention_distance(fewer_tokens(), np.ones((2, 4, 4, 1))),
            "model: its blocks read 3 tokens, fewer than the 4 patches",
        ),
        (lambda m, x: attention_rollout(m, x, residual=1), "residual 1: give a share from 0 to below 1"),
        (lambda m, x: attention_rollout(m, x, discard_ratio=-0.1), "discard_ratio -0.1: give a share"),
        (lambda m, x: attention_rollout(m, x, head_fusion="sum"), "head_fusion 'sum': choose 'mean', 'max' or 'min'"),
        (
            lambda m, x: attention_rollout(one_axis(), np.ones((1, 8, 1)), axis=Figure().subplots()),
            "axis: patches along 1 axes are no picture; give images or volumes, or no axis",
        ),
    ],
)
def test_bad_arguments(model, images, call, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call(model, images)
    assert "\n" not in str(caught.value)


# The page


def test_every_picture_of_the_page_is_there_and_small():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "docs" / "attention.md").read_text())
    assert len(pictures) >= 5
    for picture in pictures:
        assert (ROOT / "docs" / picture).stat().st_size < 150_000

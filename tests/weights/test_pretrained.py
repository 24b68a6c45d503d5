"""Classifiers into the encoders of models for segmentation, whose decoders keep their weights or get the same."""

import keras
import numpy as np
import pytest

import kseq
from kseq.models import SETR, Swin, SwinUnet, TransUNet, ViT
from kseq.weights import MismatchError, SwinMicrosoft, VitJax, VitTimm, VitTransformers, resample_positions
from tests.numpy_initializers import numpy_initializers

SIZES = {"embed_dim": 8, "depth": 4, "num_heads": 2}
SWIN = {"patch_size": 2, "embed_dim": 4, "num_heads": (1, 2, 2), "window_size": 2}


@pytest.fixture(autouse=True, scope="module")
def fast_building():
    with numpy_initializers():
        yield


def checkpoint(layout, model):
    """Numbers for all tensors that the layout has for this model."""
    random = np.random.default_rng(0)
    shapes = {name: shape for rule in layout.rules(model, {}) for name, shape in rule.sources.items()}
    return {name: random.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def weights(model):
    return {layer.name: [x.copy() for x in layer.get_weights()] for layer in model.layers if layer.weights}


def assert_same(got, expected):
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def vit():
    return ViT((32, 32, 3), 7, patch_size=16, **SIZES)  # 5 positions


@pytest.mark.parametrize(
    ("layout", "make"),
    [
        (VitTimm(), lambda: SETR((32, 48, 3), 3, decoder="naive", auxiliary=[1], channels=4, **SIZES)),
        (VitTransformers(), lambda: SETR((32, 48, 3), 3, decoder="mla", channels=4, **SIZES)),
        (VitJax(), lambda: TransUNet((32, 48, 3), 3, hybrid=False, decoder_channels=(2, 2, 2, 2), **SIZES)),
    ],
    ids=["naive", "mla", "transunet"],
)
def test_a_vision_transformer_into_the_encoder(layout, make, vit):
    state = checkpoint(layout, vit)
    kseq.weights.load(vit, state)
    model, whole = make(), weights(vit)
    before = weights(model)
    kseq.weights.load(model, state)
    after = weights(model)
    (table,), (old,) = after.pop("position_encoding"), whole.pop("position_encoding")
    tokens = int("class_token" in after)
    assert_same(table[:tokens], old[:tokens])
    expected = resample_positions(old[1:], (2, 2), (2, 3), 0, layout.interpolation)
    np.testing.assert_allclose(table[tokens:], expected, atol=1e-6)
    loaded = (whole.keys() & after.keys()) - {"logits"}
    assert len(loaded) >= 5
    for name, values in after.items():
        assert_same(values, whole[name] if name in loaded else before[name])

    state.pop(next(name for name in state if "block" in name or "layer" in name))
    state["unheard_of"] = np.zeros(1)
    with pytest.raises(MismatchError) as error:
        kseq.weights.load(model, state, skip="logits")
    assert {kind: len(names) for kind, names in error.value.problems.items()} == {"missing": 1, "extra": 1}
    assert error.value.problems["extra"] == ["unheard_of"]


def test_the_mean_of_patches_that_a_classifier_normalises_is_of_no_use_to_setr(vit):
    state = checkpoint(VitTimm(), vit)
    state |= {f"fc_norm.{part}": state.pop(f"norm.{part}") for part in ("weight", "bias")}
    kseq.weights.load(SETR((32, 32, 3), 3, channels=4, **SIZES), state)


def test_of_a_table_without_the_class_token_no_position_is_dropped(vit):
    state = checkpoint(VitTimm(), vit)
    state["pos_embed"] = state["pos_embed"][:, 1:]
    model = SETR((32, 32, 3), 3, decoder="mla", channels=4, **SIZES)
    kseq.weights.load(model, state)
    assert_same(model.get_layer("position_encoding").get_weights(), state["pos_embed"])


@pytest.mark.parametrize("tokens", [0, 1])
def test_swin_into_encoder_and_decoder(tokens):
    """The second stage of the decoder has a block more than the encoder there, the first one a block less."""
    swin = Swin((32, 32, 3), 5, **SWIN, depths=(2, 1, 1))
    state = checkpoint(SwinMicrosoft(), swin)
    arguments = {"global_tokens": 1, "upsampling": "non_local"} if tokens else {}
    model = SwinUnet((32, 32, 3), 3, **SWIN, depths=(2, 1, 1), decoder_depths=(1, 2), **arguments)
    before = weights(model)
    kseq.weights.load(swin, state)
    kseq.weights.load(model, state)
    whole, after = weights(swin), weights(model)
    for name, values in after.items():
        source = name.removeprefix("decoder_") if "_block_" in name else name
        assert_same(values, whole[source] if source in whole and name != "logits" else before[name])
    table = model.get_layer("decoder_stage_1_block_0").attention.table
    assert_same(keras.ops.convert_to_numpy(table), state["layers.1.blocks.0.attn.relative_position_bias_table"])
    assert not np.array_equal(after["decoder_stage_0_block_0"][0], before["decoder_stage_0_block_0"][0])

    norms = {f"norm{stage}.{part}": np.full(4 * 2**stage, 3.0) for stage in range(3) for part in ("weight", "bias")}
    backbone = {name: x for name, x in state.items() if not name.startswith(("norm.", "head."))} | norms
    kseq.weights.load(model, backbone)
    np.testing.assert_array_equal(model.get_layer("stage_2_norm").get_weights()[0], norms["norm2.weight"])
    with pytest.raises(MismatchError, match="extra: layers.3.blocks.0.norm1.weight"):
        kseq.weights.load(model, state | {"layers.3.blocks.0.norm1.weight": np.zeros(4)})

"""SETR of its authors: what the reference computes, from its weights."""

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.layers import LinearResizing
from kseq.models import SETR
from kseq.weights import Setr
from tests.numpy_initializers import numpy_initializers
from tests.weights.golden import close, read

SMALL = {"embed_dim": 24, "depth": 4, "num_heads": 3, "channels": 12}


@pytest.fixture(autouse=True, scope="module")
def fast_building():
    with numpy_initializers():
        yield


def first(x):
    return np.moveaxis(keras.ops.convert_to_numpy(x), -1, 1)


def run(model, arrays, *names):
    """Outputs, and those of the layers of these names, in one pass."""
    outputs = model.output | {name: model.get_layer(name).output for name in names}
    outputs = keras.Model(model.input, outputs).predict(np.moveaxis(arrays["input"], 1, -1), verbose=0)
    return {name: np.moveaxis(x, -1, 1) if x.ndim == 4 else x for name, x in outputs.items()}


def test_golden_naive():
    """The reference's file interpolates the auxiliary maps twice, its configurations and our model once."""
    state, arrays, _ = read("setr_naive")
    model = SETR((64, 64, 3), 5, decoder="naive", auxiliary=[1, 2], **SMALL)
    kseq.weights.load(model, state)
    got = run(
        model, arrays, "encoder_block_3", "decoder_norm", "decoder_batch_norm_0", "auxiliary_0_logits",
        "auxiliary_1_logits",
    )  # fmt: skip
    close(got["encoder_block_3"], arrays["stage/last_block"])
    close(got["decoder_norm"].reshape(1, 24, 16).swapaxes(1, 2), arrays["stage/head_norm"])
    close(got["logits"], arrays["output_0"])
    for head in range(2):
        x = np.moveaxis(got[f"auxiliary_{head}_logits"], 1, -1)
        close(first(LinearResizing(64)(LinearResizing(scale=4)(x))), arrays[f"output_{1 + head}"])


def test_golden_pup():
    state, arrays, _ = read("setr_pup")
    model = SETR((64, 64, 3), 5, decoder="pup", auxiliary=[1, 3], **SMALL)
    kseq.weights.load(model, state)
    got = run(model, arrays, "encoder_block_3", "decoder_convolution_0", "decoder_convolution_3")
    close(got["encoder_block_3"], arrays["stage/last_block"])

    def bias_of(step):
        """The reference's, which ours takes off the running mean behind it."""
        return state[f"decode_head.conv_{step}.bias"][:, None, None]

    close(got["decoder_convolution_0"] + bias_of(0), arrays["stage/head_conv_0"])
    close(got["decoder_convolution_3"] + bias_of(3), arrays["stage/head_conv_3"])
    for output, name in enumerate(("logits", "auxiliary_0", "auxiliary_1")):
        close(got[name], arrays[f"output_{output}"])


def test_golden_mla():
    state, arrays, _ = read("setr_mla")
    model = SETR((64, 64, 3), 5, decoder="mla", auxiliary=True, **SMALL)
    kseq.weights.load(model, state)
    got = run(model, arrays, "encoder_block_0", "level_0_relu", "level_3_relu", "levels")
    close(got["encoder_block_0"], arrays["stage/block_0"])
    close(got["level_0_relu"], arrays["stage/mla_p2"])
    close(got["level_3_relu"], arrays["stage/mla_p5"])
    close(got["levels"], arrays["stage/mlahead"])
    for output, name in enumerate(("logits", *(f"auxiliary_{head}" for head in range(4)))):
        close(got[name], arrays[f"output_{output}"])


def test_a_model_without_auxiliary_heads_loads_the_same_checkpoint():
    whole, bare = (SETR((64, 64, 3), 5, decoder="mla", auxiliary=auxiliary, **SMALL) for auxiliary in (True, False))
    state, _, _ = read("setr_mla")
    for model in (whole, bare):
        kseq.weights.load(model, {f"module.{name}": array for name, array in state.items()})
    for layer in bare.layers:
        for got, expected in zip(layer.get_weights(), whole.get_layer(layer.name).get_weights(), strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("decoder", ["pup", "mla"])
def test_positions_are_resampled_without_the_class_token(decoder):
    state, _, _ = read(f"setr_{decoder}")
    model = SETR((32, 96, 3), 5, decoder=decoder, **SMALL)
    kseq.weights.load(model, state)
    table, old = model.get_layer("position_encoding").get_weights()[0], state["backbone.pos_embed"][0]
    prefix = int(decoder == "pup")
    np.testing.assert_allclose(table[:prefix], old[:prefix])
    expected = kseq.weights.resample_positions(old[1:], (4, 4), (2, 6), 0, "bicubic")
    np.testing.assert_allclose(table[prefix:], expected, atol=1e-6)


def test_other_classes():
    state, _, _ = read("setr_pup")
    model = SETR((64, 64, 3), 7, decoder="pup", **SMALL)
    kseq.weights.load(model, state, skip="logits")
    np.testing.assert_array_equal(model.get_layer("decoder_norm").get_weights()[1], state["decode_head.norm.bias"])


def test_every_parameter_comes_from_the_checkpoint():
    for decoder in ("naive", "pup", "mla"):
        model = SETR((64, 64, 3), 5, decoder=decoder, **SMALL)
        rules = Setr().rules(model, {})
        assert {id(rule.variable) for rule in rules} == {id(v) for v in model.variables if "seed" not in v.path}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SETR((64, 64, 3), 5, decoder="naive", class_token=False, **SMALL), "have a class token"),
        (lambda: SETR((64, 64, 3), 5, decoder="mla", class_token=True, **SMALL), "'mla' have none"),
        (lambda: SETR((64, 64, 3), 5, decoder="mla", **SMALL), r"missing: backbone\.norm_3.*extra: decode_head\.norm"),
        (lambda: kseq.models.ViT((64, 64, 3), 5, embed_dim=24, depth=4, num_heads=3), "no kseq.models.SETR"),
    ],
)
def test_what_cannot_correspond(make, message):
    with pytest.raises(InputError, match=message):
        kseq.weights.load(make(), read("setr_naive")[0])

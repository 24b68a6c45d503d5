"""Against AlexHex7/Non-local_pytorch."""

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.layers import NonLocalBlock
from kseq.layers.non_local_block import MODES
from tests.weights.golden import close, read


def block(mode, config, shape):
    layer = NonLocalBlock(mode, pool=config["sub_sample"], scale=False)
    layer.build(shape)
    return layer


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", MODES)
def test_it_answers_as_the_original(mode, rank):
    state, arrays, meta = read(f"nonlocal_{mode}_{rank}d")
    x = np.moveaxis(arrays["input"], 1, -1)
    layer = block(mode, meta["config"], x.shape)
    kseq.weights.load(layer, state)
    expected = np.moveaxis(arrays["output_0"], 1, -1)
    close(layer(x), expected)
    outputs, weights = layer(x, return_attention_scores=True)
    close(outputs, expected)
    close(weights, arrays["output_1"])


def test_what_cannot_correspond():
    state, _, meta = read("nonlocal_gaussian_1d")
    with pytest.raises(InputError, match="scale True.*build it with scale=False"):
        layer = NonLocalBlock("gaussian")
        layer.build((None, 12, 8))
        kseq.weights.load(layer, state)
    with pytest.raises(InputError, match="no kseq.layers.NonLocalBlock"):
        dense = keras.layers.Dense(2)
        dense.build((None, 2))
        kseq.weights.load(dense, state)
    with pytest.raises(kseq.weights.MismatchError, match="missing: theta.weight"):
        kseq.weights.load(block("embedded_gaussian", meta["config"], (None, 12, 8)), state)

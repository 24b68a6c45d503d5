"""Against the U-Nets of MONAI, in 3-D."""

import math

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.models import AttentionUNet, ResidualUNet
from tests.weights.golden import close, read

MODELS = {"monai_unet": ResidualUNet, "monai_attention_unet": AttentionUNet}


def model_of(name, **others):
    config = read(name)[2]["config"]
    return MODELS[name](
        **{"input_shape": (16, 16, 16, 1), "num_classes": config["out_channels"], "channels": config["channels"]}
        | others
    )


@pytest.mark.parametrize("name", MODELS)
def test_it_answers_as_monai(name):
    state, arrays, meta = read(name)
    model = model_of(name)
    kseq.weights.load(model, state)
    got = model.predict(np.moveaxis(arrays["input"], 1, -1), verbose=0)
    expected = np.moveaxis(arrays["output"], 1, -1)
    close(got, expected, 1e-5 * max(1, meta["output_abs_max"]))
    normalised = sum(array.size for key, array in state.items() if key.endswith("conv.bias")) - expected.shape[-1]
    parameters = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    assert parameters == meta["parameters"] - normalised  # the biases that only shift what is normalised


@pytest.mark.parametrize("name", MODELS)
def test_what_does_not_fit(name):
    state, _, _ = read(name)
    with pytest.raises(kseq.weights.MismatchError, match="wrong shape"):
        kseq.weights.load(model_of(name, num_classes=7), state)
    with pytest.raises(kseq.weights.MismatchError, match="missing"):
        kseq.weights.load(model_of(name, channels=(4, 8, 16, 16)), state)
    dense = keras.layers.Dense(2)
    dense.build((None, 2))
    with pytest.raises(InputError, match="to which monai_.*unet checkpoints belong"):
        kseq.weights.load(dense, state)

"""Against Hzzone/Precipitation-Nowcasting."""

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.layers.conv_lstm import ConvLSTM
from kseq.weights.conv_lstm_hzzone import ConvLstmHzzone
from tests.weights.golden import close, read


def maps_last(maps):
    """`(…, channels, height, width)` as `(…, height, width, channels)`."""
    return np.moveaxis(maps, -3, -1)


def frames(arrays, key):
    """`(time, batch, channels, height, width)` as `(batch, time, height, width, channels)`."""
    return maps_last(arrays[key]).swapaxes(0, 1)


@pytest.mark.parametrize("suffix", ["", "_with_state"])
def test_it_answers_as_the_original(suffix):
    state, arrays, meta = read("convlstm_peephole")
    config = meta["config"]
    layer = ConvLSTM(config["num_filter"], config["kernel_size"], return_sequences=True, return_state=True)
    kseq.weights.load(layer, state, ConvLstmHzzone())
    assert layer.count_params() == meta["parameters"]
    first = [maps_last(arrays[key]) for key in ("h_0", "c_0")] if suffix else None
    outputs, h, c = layer(frames(arrays, "input"), initial_state=first)
    close(outputs, frames(arrays, f"output{suffix}"))
    close(h, maps_last(arrays[f"h_n{suffix}"]))
    close(c, maps_last(arrays[f"c_n{suffix}"]))


def test_a_checkpoint_without_peepholes_is_that_of_zeros():
    state, arrays, meta = read("convlstm_peephole")
    x = frames(arrays, "input")
    without = {name: tensor for name, tensor in state.items() if name.startswith("_conv")}
    zeros = {name: np.zeros_like(tensor) for name, tensor in state.items() if name not in without}
    outputs = []
    for tensors, peepholes in ((without, False), (without | zeros, True)):
        assert ConvLstmHzzone().recognises(set(tensors))
        layer = ConvLSTM(meta["config"]["num_filter"], 3, peepholes=peepholes)
        layer.build(x.shape)
        kseq.weights.load(layer, tensors, ConvLstmHzzone())
        outputs.append(keras.ops.convert_to_numpy(layer(x)))
    np.testing.assert_allclose(*outputs, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel_size": 2}, "kernel_size 2, which .* the same odd sizes"),
        ({"recurrent_kernel_size": 1}, "recurrent_kernel_size 1, which"),
        ({"strides": 2}, "strides 2"),
        ({"padding": "valid"}, "padding 'valid'"),
        ({"use_bias": False}, "use_bias False"),
        ({"peepholes": "channel"}, "peepholes 'channel'"),
        ({"peepholes": False}, "extra: Wci, Wcf, Wco"),
        ({"filters": 3}, r"wrong shape: _conv.weight"),
    ],
)
def test_what_cannot_correspond(arguments, message):
    state, arrays, _ = read("convlstm_peephole")
    layer = ConvLSTM(**{"filters": 4, "kernel_size": 3} | arguments)
    layer.build(frames(arrays, "input").shape)
    with pytest.raises(InputError, match=message):
        kseq.weights.load(layer, state, ConvLstmHzzone())


def test_another_layer():
    with pytest.raises(InputError, match=r"no kseq.layers.ConvLSTM"):
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
        kseq.weights.load(layer, read("convlstm_peephole")[0], ConvLstmHzzone())

"""The encoder–forecaster of convolutional LSTMs: the next frames of a video.

    H^l_t, C^l_t = ConvLSTM^l(H^{l-1}_t), H^0_t = X_t                 encoder, over the frames that are given
    G^l_s        = ConvLSTM'^l(G^{l-1}_s) from H^l_T, C^l_T           forecaster, s = 1 … horizon, without input
    logits_s     = W [G^1_s; …; G^L_s] + b                            a 1 × 1 convolution

Frames are cut into patches, whose pixels become channels, and the logits are put together again. The forecaster
predicts all frames at once, from states alone: nothing predicted is fed back.

Source: Shi et al., "Convolutional LSTM network: a machine learning approach for precipitation nowcasting", NIPS 2015
(arXiv 1506.04214), section 3.3 and table 1. The parameters of that table are those of `VARIANTS`, to the last one: with
a bias in every layer, peepholes of one number a channel, and a first layer of the forecaster without input kernel.

Deviations: `peepholes=True`, the default, has one number for each place and channel, as equation 3 is commonly read.
"""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import Dense
from kseq.layers.autonomous_conv_lstm import AutonomousConvLSTM
from kseq.layers.conv_lstm import ConvLSTM
from kseq.models.divisible import multiples
from kseq.models.registry import Variant


def ConvLSTMForecaster(
    input_shape: Sequence[int | None],
    *,
    horizon: int = 10,
    filters: Sequence[int] = (128, 64, 64),
    kernel_size: int = 5,
    recurrent_kernel_size: int | None = None,
    patch_size: int = 4,
    peepholes: bool | Literal["channel"] = True,
    name: str = "conv_lstm_forecaster",
) -> keras.Model:
    """Build an encoder–forecaster for videos, or for sequences of signals or volumes.

    Args:
        input_shape: `(time, *space, channels)` with one to three axes of space; time may be `None`, for any number.
        horizon: frames to predict.
        filters: channels of the layers, from the frames up; of the encoder and the forecaster alike.
        kernel_size: places of the input kernels along each axis.
        recurrent_kernel_size: places of the recurrent kernels; `None` for as many.
        patch_size: pixels of a patch along each axis; must divide the frames.
        peepholes: see `kseq.layers.ConvLSTM`.
        name: name of the model.

    Returns:
        A model from frames `(batch, time, *space, channels)` to logits `(batch, horizon, *space, channels)`, whose
        sigmoid are the pixels, from 0 to 1.

    Raises:
        InputError: for an argument out of range, or frames that patches do not fill.
    """
    check_frames(input_shape, filters, kernel_size, patch_size)
    if horizon < 1:
        raise InputError(f"horizon {horizon!r}: give the number of frames to predict, 1 or more")
    sizes = {"kernel_size": kernel_size, "recurrent_kernel_size": recurrent_kernel_size, "peepholes": peepholes}
    first_size = kernel_size if recurrent_kernel_size is None else recurrent_kernel_size

    frames = keras.Input(tuple(input_shape), name="frames")
    x, states = patches(frames, patch_size), []
    for level, count in enumerate(filters):
        is_last = level == len(filters) - 1
        encoder = ConvLSTM(count, **sizes, return_sequences=not is_last, return_state=True, name=f"encoder_{level}")
        x, *state = encoder(x)
        states.append(state)

    x = AutonomousConvLSTM(
        filters[0], first_size, steps=horizon, peepholes=peepholes, return_sequences=True, name="forecaster_0"
    )(states[0])
    hidden = [x]  # (batch, horizon, *grid, filters)
    for level, count in enumerate(filters[1:], start=1):
        forecaster = ConvLSTM(count, **sizes, return_sequences=True, name=f"forecaster_{level}")
        hidden.append(forecaster(hidden[-1], initial_state=states[level]))
    x = layers.Concatenate(name="hidden_states")(hidden) if len(hidden) > 1 else hidden[0]
    x = Dense(patch_size ** (len(input_shape) - 2) * input_shape[-1], name="patch_logits")(x)
    return keras.Model(frames, _pixels(x, patch_size, horizon, input_shape), name=name)


def check_frames(input_shape, filters, kernel_size, patch_size) -> None:
    """Raise an error unless layers of these sizes can read frames of this shape."""
    shape = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    time, *space, channels = shape if 3 <= len(shape) <= 5 else (0, 0)
    if not all(isinstance(size, int) and size > 0 for size in (1 if time is None else time, *space, channels)):
        raise InputError(
            f"input_shape {input_shape!r}: give (time, *space, channels) with one to three axes of space, 1 or "
            "more each; only time may be None"
        )
    counts = tuple(filters) if isinstance(filters, Iterable) else ()
    if not counts or not all(isinstance(count, Integral) and count >= 1 for count in counts):
        raise InputError(f"filters {filters!r}: give 1 or more for each layer, and at least one layer, as in (64, 64)")
    for argument, value in (("kernel_size", kernel_size), ("patch_size", patch_size)):
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{argument} {value!r}: give 1 or more")
    if any(size % patch_size for size in space):
        sizes = multiples(space, (patch_size,) * len(space))
        raise InputError(
            f"patch_size {patch_size}: does not divide frames of {tuple(space)}; give frames of {sizes}, or other "
            "patches"
        )


def patches(x, size: int):
    """Patches of frames as channels: `(batch, time, *grid, size^rank · channels)`."""
    _, time, *space, channels = x.shape
    if size == 1:
        return x
    rank, grid = len(space), [n // size for n in space]
    time = -1 if time is None else time
    split = [count for n in grid for count in (n, size)]
    x = layers.Reshape((time, *split, channels), name="split")(x)  # (batch, time, n_1, P, n_2, P, …, channels)
    last = 2 * rank + 2
    x = layers.Permute((1, *range(2, last, 2), *range(3, last, 2), last), name="grid")(x)
    return layers.Reshape((time, *grid, size**rank * channels), name="patches")(x)


def _pixels(x, size, horizon, input_shape):
    """The frames of which `patches` makes x."""
    _, *space, channels = input_shape
    rank, grid = len(space), [n // size for n in space]
    x = layers.Reshape((horizon, *grid, *(size,) * rank, channels), name="unfolded")(x)
    order = [axis for level in range(rank) for axis in (2 + level, 2 + rank + level)]
    x = layers.Permute((1, *order, 2 * rank + 2), name="joined")(x)  # (batch, horizon, n_1, P, n_2, P, …, channels)
    return layers.Reshape((horizon, *space, channels), name="logits")(x)


def _variant(parameters: int, filters: Sequence[int], **arguments) -> Variant:
    arguments |= {"input_shape": (10, 64, 64, 1), "filters": filters, "peepholes": "channel"}
    return Variant(ConvLSTMForecaster, arguments, parameters, "Shi et al. 2015, table 1")


_WIDE = {"kernel_size": 9, "recurrent_kernel_size": 1}

VARIANTS = {
    "conv_lstm_forecaster": _variant(7_585_296, (128, 64, 64)),
    "conv_lstm_forecaster_2_layers": _variant(10_042_896, (128, 128)),
    "conv_lstm_forecaster_1_layer": _variant(13_524_496, (256,)),
    "conv_lstm_forecaster_9x9": _variant(8_830_480, (128, 64, 64), **_WIDE),
    "conv_lstm_forecaster_9x9_2_layers": _variant(11_550_224, (128, 128), **_WIDE),
}

"""Videos classified by convolutional LSTMs, as a whole or frame by frame.

    H^l_t = ConvLSTM^l(H^{l-1}_t), H^0_t = the patches of X_t
    v_t = the mean of H^L_t over its places,  logits_t = W v_t + b

Frame by frame logits_t know the frames up to t only, so that the model can run while the video does. The logits of a
clip are those of its last frame.

Source: the layers are those of Shi et al. 2015 (arXiv 1506.04214), on top of each other and with patches as there; the
paper does not classify. Mean and affine map are ours.
"""

from collections.abc import Sequence
from typing import Literal

import keras
from keras import layers, ops

from kseq.errors import InputError
from kseq.layers import Dense
from kseq.layers.conv_lstm import ConvLSTM
from kseq.models.conv_lstm_forecaster import check_frames, patches


def ConvLSTMClassifier(
    input_shape: Sequence[int | None],
    num_classes: int,
    *,
    filters: Sequence[int] = (64, 64),
    kernel_size: int = 3,
    patch_size: int = 4,
    peepholes: bool | Literal["channel"] = True,
    per_frame: bool = False,
    masked: bool = False,
    dropout: float = 0.0,
    name: str = "conv_lstm_classifier",
) -> keras.Model:
    """Build a classifier of videos, or of sequences of signals or volumes.

    Args:
        input_shape: `(time, *space, channels)` with one to three axes of space; time may be `None`, for any number.
        num_classes: number of classes.
        filters: channels of the layers, from the frames up.
        kernel_size: places of all kernels along each axis.
        patch_size: pixels of a patch along each axis; must divide the frames.
        peepholes: see `kseq.layers.ConvLSTM`.
        per_frame: whether each frame has a class, in place of the clip. Layer names and weights are the same.
        masked: whether the model has a second input, `mask`, booleans `(batch, time)`: for clips of several
            lengths in a batch. What stands in a masked frame changes no answer to another.
        dropout: share of the mean set to zero while training.
        name: name of the model.

    Returns:
        A model from frames `(batch, time, *space, channels)`, with `masked` `[frames, mask]`, to logits
        `(batch, num_classes)`, or `(batch, time, num_classes)` with `per_frame`.

    Raises:
        InputError: for an argument out of range, or frames that patches do not fill.
    """
    check_frames(input_shape, filters, kernel_size, patch_size)
    if num_classes < 1:
        raise InputError(f"num_classes {num_classes!r}: give 1 or more")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout {dropout!r}: give a share from 0 to below 1")

    frames = keras.Input(tuple(input_shape), name="frames")
    mask = keras.Input(tuple(input_shape[:1]), dtype="bool", name="mask") if masked else None
    x = patches(frames, patch_size)
    for level, count in enumerate(filters):
        sequences = per_frame or level < len(filters) - 1
        layer = ConvLSTM(count, kernel_size, peepholes=peepholes, return_sequences=sequences, name=f"conv_lstm_{level}")
        x = layer(x, mask=mask) if masked else layer(x)
    x = ops.mean(x, axis=tuple(range(-len(input_shape) + 1, -1)))  # (batch, filters) or (batch, time, filters)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    logits = Dense(num_classes, name="logits")(x)
    return keras.Model([frames, mask] if masked else frames, logits, name=name)

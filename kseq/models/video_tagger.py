"""The class of every frame of a video: a network that reads frames, and a recurrent one that reads what it says.

    z_t = f(x_t),   h_t = LSTM(z_t, h_(t−1)),   logits_t = V h_t + c,   remaining duration_t = v · h_t + d

Unidirectional, h_t knows the frames up to t and can be computed while the camera runs; bidirectional, all of them.

Sources: the recurrent convolutional network of Donahue et al., CVPR 2015 (arXiv 1411.4389); trained end to end for
surgical phases, and before that, without labels, to tell how long an operation will still last: Yengera et al., "Less
is more: surgical phase recognition with less annotations through self-supervised pre-training of CNN-LSTM networks",
2018 (arXiv 1805.08569).

Deviations: f is any network; the small one of this file normalises over groups of channels of one frame, since
statistics over a batch of frames of a few videos mislead end-to-end training (Rivoir et al., arXiv 2203.07976). The
layers above read z_t alone, not the time that has gone by.
"""

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import Literal

import keras
from keras import layers

from kseq.errors import InputError
from kseq.layers import Convolution, Dense, MaxPooling
from kseq.layers import normalization as normalization_layer
from kseq.layers.frame_encoder import FrameEncoder
from kseq.layers.mask_steps import MaskSteps
from kseq.layers.recurrent import CELLS
from kseq.models.registry import Variant
from kseq.models.token_encoder import check, read_recurrent


def VideoTagger(
    input_shape: Sequence[int],
    num_classes: int,
    *,
    encoder: keras.layers.Layer | None = None,
    train_encoder: bool = True,
    cell: Literal["lstm", "gru", "rnn"] | None = "lstm",
    units: int = 128,
    depth: int = 1,
    bidirectional: bool = False,
    remaining_duration: bool = False,
    dropout: float = 0.5,
    masked: bool = False,
    remat: int = 0,
    stateful: bool = False,
    batch_size: int | None = None,
    name: str = "video_tagger",
) -> keras.Model:
    """Build a tagger of video frames.

    Trained end to end, f and the recurrent layers learn together. In two steps, f is first trained by a tagger with
    `cell=None`, which classifies each frame by itself, and then given to another with `train_encoder=False`. Frozen, it
    is one that learned elsewhere. `model.get_layer("encoder").trainable`, and compiling anew, changes that later.

    Frames reach f as they are given, nothing scales them: divide those of a video, from 0 to 255, by 255 for a new
    `FrameNetwork`, and put those for an encoder of `keras.applications` through its `preprocess_input`.

    A frozen f says the same in every epoch: `model.get_layer("encoder")` can be run once, and what it says be the input
    of a tagger of features, whose layers are the others of this model by the same names; `kseq.models.copy_encoder`
    and `set_weights` move them.

    Args:
        input_shape: `(height, width, channels)`, or whatever the encoder reads; `(features,)` for a tagger of features
            that has no encoder.
        num_classes: number of classes; 0 for a model to pre-train, with `remaining_duration` alone.
        encoder: f, a model from `(batch, *input_shape)` to a vector: `keras.applications.ResNet50(include_top=False,
            pooling="avg")`, `ViT(input_shape, 0)`; `None` for a new `FrameNetwork`. It is shared, not copied.
        train_encoder: whether f learns. If not it is frozen, wherever else it is used too, and runs as in inference.
        cell: recurrent layer, "lstm", "gru" or vanilla "rnn"; `None` for none, every frame by itself.
        units: size of a hidden state h_t, of each direction.
        depth: recurrent layers on top of each other.
        bidirectional: whether each layer also reads the video backwards.
        remaining_duration: whether to tell how long the video will still last, in the unit of the targets.
        dropout: share of the values set to zero while training, behind each recurrent layer; without one, behind f.
        masked: whether the model has a second input, `mask`, for videos that are padded. A model that is not
            bidirectional, trained on videos padded behind, needs none: give the padding a sample weight of 0.
        remat: parts in which the frames of a training batch are encoded, each computed again in the backward pass
            instead of kept: memory for time, see `FrameEncoder`; 0 keeps all.
        stateful: whether recurrent layers go on from the states of the batch before, for truncated back-propagation
            with `kseq.training.truncated`. The weights fit a model that is not.
        batch_size: of a stateful model, videos in every batch.
        name: name of the model.

    Returns:
        A model from `frames` `(batch, time, *input_shape)`, of videos of any length, to logits
        `(batch, time, num_classes)`; with `masked` from `[frames, mask]`, mask `(batch, time)` true at frames that are
        there; with `remaining_duration` to a dict of `"logits"`, unless there are no classes, and
        `"remaining_duration"` `(batch, time, 1)`. Padding cannot change the answers at a frame; but an encoder that
        normalises over the batch has padded frames in its statistics while it trains.

    Raises:
        InputError: for an argument out of range, an encoder that does not give a vector for such frames, or that
            `remat` cannot compute again; for `remat` where there is no f, or `train_encoder=False` where it is new.
    """
    sizes = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    if not sizes or not all(isinstance(size, Integral) and size >= 1 for size in sizes):
        raise InputError(
            f"input_shape {input_shape!r}: give (height, width, channels), or (features,) without an encoder, 1 or "
            "more each"
        )
    check({"units": units, "depth": depth, "batch_size": batch_size}, {"dropout": dropout})
    if encoder is None and not train_encoder:
        raise InputError("train_encoder False with encoder None: there is nothing learned to keep; give an encoder")
    if encoder is None and remat and len(sizes) == 1:
        raise InputError(f"remat {remat!r}: a tagger of features has no encoder to compute again; leave it out")
    _check(input_shape, num_classes, encoder, cell, bidirectional, remaining_duration, stateful, batch_size)

    inputs = x = keras.Input(batch_shape=(batch_size, None, *input_shape), name="frames")
    if masked:
        inputs = [x, keras.Input(batch_shape=(batch_size, None), dtype="bool", name="mask")]
        x = MaskSteps(name="masking")(inputs)
    if encoder is None and len(input_shape) > 1:
        encoder = FrameNetwork(input_shape)
    if encoder is not None:
        read = FrameEncoder(encoder, remat=remat, trainable=train_encoder, name="encoder")
        read.build((None, None, *input_shape))  # or an error, before Keras can wrap it
        x = read(x)  # (batch, time, dim)
    if cell is not None:
        x = read_recurrent(
            x, cell, units, depth, bidirectional=bidirectional, stateful=stateful, dropout=dropout
        )  # (batch, time, units), twice the units if bidirectional
    if dropout:
        x = layers.Dropout(dropout, name=f"dropout_{depth - 1}" if cell else "dropout")(x)
    logits = Dense(num_classes, name="logits")(x) if num_classes else None
    if not remaining_duration:
        return keras.Model(inputs, logits, name=name)
    outputs = {"logits": logits} if num_classes else {}
    return keras.Model(inputs, outputs | {"remaining_duration": Dense(1, name="remaining_duration")(x)}, name=name)


def FrameNetwork(
    input_shape: Sequence[int],
    *,
    channels: Sequence[int] = (16, 32, 64, 128),
    normalization: Literal["group", "instance", "batch"] | None = "group",
    name: str = "frame_network",
) -> keras.Model:
    """Build a small convolutional network from a frame to a vector.

    At each level a 3 × 3 convolution, normalisation and ReLU; the map is halved between levels, and its mean is taken
    behind the last.

    Args:
        input_shape: `(*space, channels)`, one to three axes of space, each of at least 2^(levels − 1) places.
        channels: of each level; the last is the size of the vector.
        normalization: "group" with 8 groups, "instance", "batch", or `None`.
        name: name of the model.

    Returns:
        A model from `(batch, *input_shape)` to `(batch, channels[-1])`.

    Raises:
        InputError: for channels below 1 or not a multiple of the groups, or frames that cannot be halved so often.
    """
    check({"channels": min(channels, default=0)}, {})
    least = 2 ** (len(channels) - 1)
    sizes = tuple(input_shape) if isinstance(input_shape, Iterable) else ()
    known = 2 <= len(sizes) <= 4 and all(isinstance(size, Integral) and size >= 1 for size in sizes)
    if not known or min(sizes[:-1]) < least:
        raise InputError(
            f"input_shape {input_shape!r}: give (height, width, channels), at least {least} × {least} pixels for "
            f"{len(channels)} levels of channels, or an encoder of your own"
        )
    frames = x = keras.Input(tuple(input_shape), name="frames")
    for level, filters in enumerate(channels):
        if level:
            x = MaxPooling(2, name=f"level_{level}_pooling")(x)
        x = Convolution(
            filters,
            3,
            use_bias=normalization is None,
            kernel_initializer="he_normal",
            name=f"level_{level}_convolution",
        )(x)
        if normalization is not None:
            x = normalization_layer(normalization, f"level_{level}_norm")(x)
        x = layers.ReLU(name=f"level_{level}_activation")(x)
    x = _GLOBAL_MEANS[len(input_shape)]("channels_last", name="mean")(x)  # (batch, channels)
    return keras.Model(frames, x, name=name)


_GLOBAL_MEANS = {
    2: layers.GlobalAveragePooling1D,
    3: layers.GlobalAveragePooling2D,
    4: layers.GlobalAveragePooling3D,
}


def _check(input_shape, num_classes, encoder, cell, bidirectional, remaining_duration, stateful, batch_size):
    if num_classes < (0 if remaining_duration else 1):
        raise InputError(f"num_classes {num_classes!r}: give 1 or more, or 0 with remaining_duration=True")
    if cell is not None and cell not in CELLS:
        raise InputError(f"cell {cell!r}: choose one of {', '.join(CELLS)}, or None")
    if bidirectional and (cell is None or stateful):
        raise InputError(
            f"bidirectional True with cell {cell!r} and stateful {stateful!r}: the way back begins at the end of the "
            "video, so it needs a recurrent cell and the whole video at once"
        )
    if stateful and cell is None:
        raise InputError("stateful True with cell None: every frame by itself has no state; take a recurrent cell")
    if stateful != (batch_size is not None):
        raise InputError(
            f"stateful {stateful!r} with batch_size {batch_size!r}: states have a fixed number of rows; give both or "
            "neither"
        )
    if encoder is not None and not isinstance(encoder, keras.layers.Layer):
        raise InputError(f"encoder {encoder!r}: give a keras.Model from a frame to a vector, or None for a small one")
    expected = getattr(encoder, "input_shape", None)
    if isinstance(expected, tuple):
        fits = len(expected) == len(input_shape) + 1
        fits = fits and all(a in (None, b) for a, b in zip(expected[1:], input_shape, strict=True))
        if not fits:
            raise InputError(f"input_shape {tuple(input_shape)}: encoder {encoder.name} reads {expected[1:]}")


VARIANTS = {
    "video_tagger": Variant(
        VideoTagger, {"input_shape": (64, 64, 1), "num_classes": 7}, 229_879, "Donahue et al. 2015; Yengera et al. 2018"
    )
}

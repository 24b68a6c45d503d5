"""The convolutional LSTM: a recurrent layer whose states are maps."""

from collections.abc import Sequence
from numbers import Integral
from typing import Literal

import keras
from keras import ops

from kseq.backend.conv_recurrence import conv_recurrence, frame_convolution
from kseq.backend.convolution import padding_of
from kseq.errors import InputError
from kseq.layers.convolution import checked_sizes, per_axis


@keras.saving.register_keras_serializable(package="kseq")
class ConvLSTM(keras.layers.Layer):
    """The LSTM whose products are convolutions, with peepholes, for sequences, videos and volumes in time.

        i_t = σ(X_t * W_xi + H_{t-1} * W_hi + W_ci ⊙ C_{t-1} + b_i)
        f_t = σ(X_t * W_xf + H_{t-1} * W_hf + W_cf ⊙ C_{t-1} + b_f)
        C_t = f_t ⊙ C_{t-1} + i_t ⊙ tanh(X_t * W_xc + H_{t-1} * W_hc + b_c)
        o_t = σ(X_t * W_xo + H_{t-1} * W_ho + W_co ⊙ C_t + b_o)
        H_t = o_t ⊙ tanh(C_t)

    σ is `recurrent_activation`, tanh `activation`. The output gate looks at the new C_t. Kernels stand side by side in
    the order i, f, c, o. Without peepholes it is `keras.layers.ConvLSTM1D`, `2D` and `3D`, whose weights it takes by
    `set_weights`. The inputs of all frames are convolved in one call, in the place of one a step.

    Source: Shi et al. 2015 (arXiv 1506.04214), equation 3. The parameters that its table 1 counts have one number a
    channel in W_ci, W_cf and W_co, which is `peepholes="channel"`.

    Args:
        filters: channels of the states.
        kernel_size: places of W_x along each axis, or one number for all.
        recurrent_kernel_size: places of W_h; `None` for those of W_x.
        peepholes: whether there are W_ci, W_cf and W_co, `(*space, filters)` each; "channel" for `(filters,)` each,
            the same at all places, so that weights fit maps of any size.
        strides: of W_x, along each axis or one number for all; W_h has none, and keeps the size of the states.
        padding: of W_x, "same" or "valid" as in Keras, whose default is "valid".
        activation: tanh of the equations, a name or function.
        recurrent_activation: σ of the equations.
        use_bias: whether there is a b.
        unit_forget_bias: whether b_f begins with ones.
        kernel_initializer: of W_x `(*kernel_size, channels, 4 filters)`.
        recurrent_initializer: of W_h `(*recurrent_kernel_size, filters, 4 filters)`.
        bias_initializer: of b.
        peephole_initializer: of W_ci, W_cf and W_co.
        dropout: share of the input's values set to zero while training, the same in all frames of a sequence.
        recurrent_dropout: share of the values of H_{t-1} set to zero in front of W_h while training, the same at all
            steps and for all gates, where Keras draws for each gate.
        return_sequences: whether the output is H of all steps, in place of the last.
        return_state: whether the last H and C are returned too.
        go_backwards: whether the frames, and the mask, are read from the end; outputs, and the mask that is passed on,
            are in the order of reading.
        zero_output_for_mask: whether the output of masked steps is zero.
        stateful: whether the last states of a batch are the first of the next one, row by row, as for truncated
            back-propagation with `kseq.training.truncated`; `reset_state()` sets them to zero. The batch size must be
            known. The states are no weights, and are not saved.
        seed: of the dropouts.

    Call arguments:
        sequences: `(batch, time, *space, channels)` with one to three axes of space, of known sizes.
        mask: booleans `(batch, time)`, or `None`.
        initial_state: H_0 and C_0, a list; zeros if `None`, or of a stateful layer those it has.

    Masking: as that of `kseq.layers.LSTM`. At a masked step the states stay as they are and the output is that of the
    last valid step, zero before the first one whatever the initial state; with `zero_output_for_mask` it is zero. What
    stands in a masked frame, NaN included, reaches no output.

    Output shape: `(batch, *places, filters)`, or `(batch, time, *places, filters)` with `return_sequences`; with
    `return_state` also the last H and C, `(batch, *places, filters)` each.

    On JAX on CPU the gradient has no forward mode, unless strides are other than 1 and an activation is other than
    tanh, sigmoid, relu or linear.

    Raises:
        InputError: for an argument out of range, unknown sizes of space, no time step, a window larger than the input,
            a mask or states of the wrong shape, sequences that a built layer has no weights for, or of a stateful layer
            another batch size, or none that is known.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | Sequence[int],
        *,
        recurrent_kernel_size: int | Sequence[int] | None = None,
        peepholes: bool | Literal["channel"] = True,
        strides: int | Sequence[int] = 1,
        padding: Literal["same", "valid"] = "same",
        activation="tanh",
        recurrent_activation="sigmoid",
        use_bias: bool = True,
        unit_forget_bias: bool = True,
        kernel_initializer="glorot_uniform",
        recurrent_initializer="orthogonal",
        bias_initializer="zeros",
        peephole_initializer="zeros",
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        zero_output_for_mask: bool = False,
        seed: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(filters, Integral) or filters < 1:
            raise InputError(f"filters {filters!r}: give the channels of the states, an integer of 1 or more")
        if peepholes not in (True, False, "channel"):
            raise InputError(f"peepholes {peepholes!r}: give True, False, or 'channel' for one number a channel")
        if padding not in ("same", "valid"):
            raise InputError(f"padding {padding!r}: choose 'same' or 'valid'")
        for argument, share in (("dropout", dropout), ("recurrent_dropout", recurrent_dropout)):
            if not 0 <= share < 1:
                raise InputError(f"{argument} {share!r}: give a share from 0 to below 1")
        self.filters, self.peepholes, self.padding = int(filters), peepholes, padding
        self.kernel_size = checked_sizes("kernel_size", kernel_size)
        self.recurrent_kernel_size = None
        if recurrent_kernel_size is not None:
            self.recurrent_kernel_size = checked_sizes("recurrent_kernel_size", recurrent_kernel_size)
        self.strides = checked_sizes("strides", strides)
        self.activation = _activation("activation", activation)
        self.recurrent_activation = _activation("recurrent_activation", recurrent_activation)
        self.use_bias, self.unit_forget_bias = use_bias, unit_forget_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.recurrent_initializer = keras.initializers.get(recurrent_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.peephole_initializer = keras.initializers.get(peephole_initializer)
        self.return_sequences, self.return_state = return_sequences, return_state
        self.go_backwards, self.zero_output_for_mask = go_backwards, zero_output_for_mask
        self.dropout, self.recurrent_dropout, self.seed = dropout, recurrent_dropout, seed
        self.seed_generator = keras.random.SeedGenerator(seed) if dropout or recurrent_dropout else None
        self.stateful, self.states = stateful, None
        self.supports_masking = True

    def build(self, sequences_shape, initial_state_shape=None):
        self._check_sequences(sequences_shape)
        size = per_axis("kernel_size", self.kernel_size, sequences_shape[1:])
        self.kernel = self.add_weight(
            shape=(*size, sequences_shape[-1], 4 * self.filters), initializer=self.kernel_initializer, name="kernel"
        )
        places = self._places(sequences_shape)
        self._build_recurrence(places)
        if self.stateful:
            self._create_states(sequences_shape[0], places)
        self.built = True

    def _create_states(self, batch, places):
        if batch is None:
            raise InputError(
                f"sequences of an unknown batch size: {self.name} is stateful, and states have a fixed number of rows; "
                "give keras.Input(batch_shape=…)"
            )
        shape = (batch, *places, self.filters)
        # Past Keras's tracker, which would make weights of them.
        vars(self)["states"] = [
            keras.Variable("zeros", shape=shape, dtype=self.variable_dtype, trainable=False, autocast=False, name=name)
            for name in ("hidden_state", "cell_state")
        ]

    def reset_state(self):
        """Set the states of a stateful layer to zero."""
        for state in self.states or []:
            state.assign(ops.zeros(state.shape))

    @property
    def variables(self):
        """Those of Keras, and the states of a stateful layer: JAX carries only what is here from step to step."""
        return [*super().variables, *(self.states or [])]

    def _build_recurrence(self, space):
        """The weights that an input has no part in."""
        self.recurrent_kernel = self.add_weight(
            shape=(*self._recurrent_size(space), self.filters, 4 * self.filters),
            initializer=self.recurrent_initializer,
            name="recurrent_kernel",
        )
        self.bias, self.peephole_weights = None, None
        if self.use_bias:
            self.bias = self.add_weight(shape=(4 * self.filters,), initializer=self._initial_bias, name="bias")
        if self.peepholes:
            shape = (self.filters,) if self.peepholes == "channel" else (*space, self.filters)
            self.peephole_weights = [
                self.add_weight(shape=shape, initializer=self.peephole_initializer, name=name)
                for name in ("input_peephole", "forget_peephole", "output_peephole")
            ]

    def _initial_bias(self, shape, dtype=None):
        if not self.unit_forget_bias:
            return self.bias_initializer(shape, dtype=dtype)
        parts = [self.bias_initializer((count * self.filters,), dtype=dtype) for count in (1, 2)]
        return ops.concatenate([parts[0], ops.ones((self.filters,), dtype=dtype), parts[1]])

    def call(self, sequences, initial_state=None, mask=None, sequences_mask=None, training=False):
        mask = sequences_mask if mask is None else mask  # Keras's name for it where an initial state is given too
        if isinstance(mask, (list, tuple)):  # Keras gives one for each input, the states among them
            mask = mask[0] if mask[0] is None or hasattr(mask[0], "shape") else mask
        x = ops.cast(sequences, self.compute_dtype)
        mask = None if mask is None else ops.cast(ops.convert_to_tensor(mask), "bool")
        self._check_sequences(x.shape)
        *size, channels, _ = self.kernel.shape
        if len(x.shape) != len(size) + 3 or x.shape[-1] != channels:
            raise InputError(
                f"sequences of shape {tuple(x.shape)}: {self.name} was built for {len(size)} axes of space and "
                f"{channels} channels; give such sequences, or make another layer"
            )
        if mask is not None:
            _check_shape("mask", mask.shape, x.shape[:2], "(batch, time)")
        if self.go_backwards:
            x = ops.flip(x, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)
        if mask is not None:
            x = ops.where(ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(x.shape) - 2))), x, 0)  # or 0 · NaN
        if training and self.dropout:
            batch, _, *frame = ops.shape(x)
            x = x * self._kept((batch, 1, *frame), self.dropout)
        begins_with_zeros = initial_state is None and not self.stateful
        if self.stateful:
            self._check_batch(x.shape[0])
            if initial_state is None:  # copies, for PyTorch overwrites the states before it goes backward
                initial_state = [ops.copy(state) for state in self.states]
        h, states = self._carry(self._convolved(x), mask, initial_state, training)
        if self.stateful:
            for variable, state in zip(self.states, states, strict=True):
                variable.assign(state)
        return self._outputs(h, states, mask, begins_with_zeros)

    def _check_batch(self, batch):
        rows = self.states[0].shape[0]
        if batch not in (None, rows):
            raise InputError(
                f"sequences: {batch} in a batch, but {self.name} is stateful and has states for {rows}; give as many"
            )

    def _kept(self, shape, share):
        """What values are multiplied by in a dropout of this share: 0, or 1 / (1 − share)."""
        return keras.random.dropout(ops.ones(shape, dtype=self.compute_dtype), share, seed=self.seed_generator)

    def _convolved(self, x):
        """X_t * W_x + b of all frames, `(time, batch, *places, 4 filters)`."""
        x = ops.transpose(x, (1, 0, *range(2, len(x.shape))))  # (time, batch, *space, channels)
        strides = per_axis("strides", self.strides, x.shape[1:])
        kernel = ops.cast(self.kernel, self.compute_dtype)
        bias = None if self.bias is None else ops.cast(self.bias, self.compute_dtype)
        return frame_convolution(x, kernel, bias, strides=strides, padding=self.padding)

    def _carry(self, a, mask, initial_state, training):
        """All H, `(time, batch, *places, filters)`, and the last H and C."""
        space = tuple(a.shape[2:-1])
        if self.peepholes and self.peepholes != "channel":
            built = tuple(self.peephole_weights[0].shape[:-1])
            if space != built:
                raise InputError(
                    f"states of {space} places: {self.name} was built with a peephole for each of {built}; give inputs "
                    "of the size it was built for, or make it with peepholes='channel', which fits any"
                )
        if initial_state is None:
            states = [ops.zeros((ops.shape(a)[1], *space, self.filters), dtype=self.compute_dtype)] * 2
        else:
            self._check_states(initial_state, (a.shape[1], *space, self.filters))
            states = [ops.cast(state, self.compute_dtype) for state in initial_state]
        peepholes = None
        if self.peepholes:
            shape = (*space, self.filters)
            peepholes = [ops.broadcast_to(ops.cast(W, self.compute_dtype), shape) for W in self.peephole_weights]
        mask = None if mask is None else ops.transpose(mask)
        kept = None
        if training and self.recurrent_dropout:
            kept = self._kept(ops.shape(states[0]), self.recurrent_dropout)
        return conv_recurrence(
            a,
            mask,
            states,
            ops.cast(self.recurrent_kernel, self.compute_dtype),
            peepholes,
            kept,
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
        )

    def _outputs(self, h, states, mask, begins_with_zeros):
        h = ops.transpose(h, (1, 0, *range(2, len(h.shape)))) if self.return_sequences else states[0][:, None]
        if mask is not None:  # h: (batch, time or 1, *places, filters)
            shown = mask
            if not self.zero_output_for_mask:  # before the first valid step h is H_0
                shown = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
            if self.zero_output_for_mask or not begins_with_zeros:
                shown = shown if self.return_sequences else shown[:, -1:]
                h = ops.where(ops.reshape(shown, (*ops.shape(shown), *(1,) * (len(h.shape) - 2))), h, 0)
        h = h if self.return_sequences else h[:, 0]
        return (h, *states) if self.return_state else h

    def compute_output_shape(self, sequences_shape, initial_state_shape=None):
        state = (sequences_shape[0], *self._places(sequences_shape), self.filters)
        output = (state[0], sequences_shape[1], *state[1:]) if self.return_sequences else state
        return (output, state, state) if self.return_state else output

    def compute_mask(self, sequences, mask=None):
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        mask = mask if self.return_sequences else None
        if mask is not None and self.go_backwards:
            mask = ops.flip(mask, axis=1)
        return [mask, None, None] if self.return_state else mask

    def _recurrent_size(self, space) -> tuple[int, ...]:
        name = "kernel_size" if self.recurrent_kernel_size is None else "recurrent_kernel_size"
        return per_axis(name, getattr(self, name), (None, *space, self.filters))

    def _places(self, sequences_shape) -> tuple[int, ...]:
        """The size of the states."""
        frame = tuple(sequences_shape[1:])
        size, strides = per_axis("kernel_size", self.kernel_size, frame), per_axis("strides", self.strides, frame)
        space = frame[1:-1]
        pads = padding_of(self.padding, size, strides, space)
        places = tuple((n + sum(p) - k) // s + 1 for n, p, k, s in zip(space, pads, size, strides, strict=True))
        if min(places) < 1:
            raise InputError(
                f"kernel_size {size}: larger than frames of {space}; give a smaller one, or padding 'same'"
            )
        return places

    def _check_sequences(self, shape):
        if not 4 <= len(shape) <= 6 or None in shape[2:] or 0 in shape[1:]:
            raise InputError(
                f"sequences of shape {tuple(shape)}: give (batch, time, *space, channels), one to three axes of space, "
                "a known size of 1 or more to each and to the channels, and at least one time step"
            )

    def _check_states(self, states, expected):
        if not isinstance(states, (list, tuple)) or len(states) != 2:
            raise InputError(f"initial_state: {self.name} has two, H and C; give a list of {expected} each")
        for state in states:
            _check_shape("initial_state", getattr(state, "shape", ()), expected, "(batch, *places, filters)")

    def get_config(self):
        return super().get_config() | {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "recurrent_kernel_size": self.recurrent_kernel_size,
            "peepholes": self.peepholes,
            "strides": self.strides,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "recurrent_activation": keras.activations.serialize(self.recurrent_activation),
            "use_bias": self.use_bias,
            "unit_forget_bias": self.unit_forget_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "recurrent_initializer": keras.initializers.serialize(self.recurrent_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "peephole_initializer": keras.initializers.serialize(self.peephole_initializer),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "zero_output_for_mask": self.zero_output_for_mask,
            "seed": self.seed,
        }


def _activation(argument, value):
    try:
        return keras.activations.get(value)
    except ValueError:
        raise InputError(
            f"{argument} {value!r}: not known to Keras; give a name such as 'tanh', or a function"
        ) from None


def _check_shape(argument, shape, expected, axes):
    """Raise an error if a tensor does not fit; an unknown size fits any."""
    fits = len(shape) == len(expected)
    fits = fits and all(None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True))
    if not fits:
        raise InputError(f"{argument} of shape {tuple(shape)}: give {axes}, here {tuple(expected)}")

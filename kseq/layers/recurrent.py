"""The recurrent layers of Keras with a loop of our own: one semantics on every backend, and faster.

Keras's own loops differ between backends in what they do with masks, some of which crash (Keras 3.15), and are slower
(`benchmarks/recurrent.py`). Weights, arguments, initial states and dropout are Keras's, so that these layers take the
place of Keras's anywhere.

Symbols, with row vectors: x_t (dim,), h_t (units,), U the `kernel` (dim, gates · units), W the `recurrent_kernel`
(units, gates · units), b the `bias`.
"""

from numbers import Integral

import keras
from keras import ops

from kseq.backend.recurrent import (
    SLOPES,
    GRUEquations,
    LSTMEquations,
    SimpleRNNEquations,
    has_keras_kernel,
    plain_recurrence,
    recurrence,
)
from kseq.errors import InputError


class Recurrence:
    """What the recurrent layers have in common: how a cell is carried through time, in the place of Keras's loop.

    Input shape: `(batch, time, dim)`, and optionally `mask`, booleans `(batch, time)`, and `initial_state`, tensors
    `(batch, units)`, h before c.

    Output shape: `(batch, units)`, or `(batch, time, units)` with `return_sequences`; with `return_state` also the last
    states, `(batch, units)` each.

    Masking: at a masked step the states stay as they are and the output is that of the last valid step, zero before the
    first one whatever the initial state; with `zero_output_for_mask` it is zero. Each step is masked or not by itself:
    padding on the left or on the right, holes, rows without any valid step. What stands at a masked step, NaN included,
    reaches no output.

    `go_backwards` reads the sequence (and its mask) from the end, and outputs are in the order of reading. So is the
    mask that is passed on, which Keras leaves in the order of the input. `unroll` is accepted and changes nothing:
    unrolling is never faster here.

    The gradient has no forward mode, and on TensorFlow and, in part, PyTorch no second derivative. A plain loop, which
    the backend differentiates in any way, is taken with `use_cudnn=False`, with an activation other than tanh, sigmoid,
    relu or linear, and where states are dropped.

    Raises:
        InputError: for units below 1, an unknown activation, no time step, a mask or states of the wrong shape.
    """

    def __init__(self, units, *args, use_cudnn="auto", **kwargs):
        if not isinstance(units, Integral) or units < 1:
            raise InputError(f"units {units!r}: give the size of the hidden state, an integer of 1 or more")
        names = ("activation", "recurrent_activation")
        for argument, value in [*zip(names, args, strict=False), *((name, kwargs.get(name)) for name in names)]:
            try:
                keras.activations.get(value if isinstance(value, str) else None)
            except ValueError:
                raise InputError(
                    f"{argument} {value!r}: not known to Keras; give a name such as 'tanh', or a function"
                ) from None
        if use_cudnn not in ("auto", True, False):
            raise InputError(f"use_cudnn {use_cudnn!r}: give 'auto', or False for the plain loop")
        super().__init__(int(units), *args, **kwargs)
        self.use_cudnn = use_cudnn
        self._begins_with_zeros = False

    def get_config(self):
        return super().get_config() | {"use_cudnn": self.use_cudnn}

    def call(self, sequences, initial_state=None, mask=None, training=False):
        if isinstance(mask, (list, tuple)):  # Keras gives one for each input, the states among them
            mask = mask[0] if mask[0] is None or hasattr(mask[0], "shape") else ops.convert_to_tensor(mask)
        self._check(sequences, initial_state, mask)
        # For inner_loop, which Keras calls: before the first valid step h is the initial state.
        self._begins_with_zeros = initial_state is None and not self.stateful
        return super().call(sequences, initial_state=initial_state, mask=mask, training=training)

    def compute_mask(self, sequences, mask=None):
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        if mask is not None and self.go_backwards and self.return_sequences:
            mask = ops.flip(mask, axis=1)
        return super().compute_mask(sequences, mask)

    @property
    def variables(self):
        """Those of Keras, and the states of a stateful layer: JAX carries only what is here from step to step."""
        return [*super().variables, *(self.states or [])]

    def _create_state_variables(self, batch_size):
        super()._create_state_variables(batch_size)
        for state in self.states:
            state._autocast = False  # or assignments in mixed precision are lost on PyTorch (Keras 3.15)

    def inner_loop(self, sequences, initial_state, mask, training=False):
        """The loop through time; `keras.layers.RNN.call` calls it with states and dropout masks that it has made.

        Returns:
            The last output `(batch, units)`, the outputs `(batch, time, units)`, the list of last states.
        """
        states = list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state]
        if self.stateful:
            states = [ops.copy(state) for state in states]  # PyTorch overwrites them before the backward pass
        if mask is None and has_keras_kernel(self):
            return super().inner_loop(sequences, states, None, training=training)
        if mask is not None:
            mask = ops.cast(mask, "bool")
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
            mask = None if mask is None else ops.flip(mask, axis=1)

        h, states = self._carry(sequences, mask, states, training)  # h: (batch, time, units)
        last = states[0]
        if mask is None:
            return last, h, states
        if self.zero_output_for_mask:
            return ops.where(mask[:, -1:], last, 0), h, states
        if self._begins_with_zeros:
            return last, h, states
        seen = ops.cumsum(ops.cast(mask, "int32"), axis=1) > 0
        return ops.where(seen[:, -1:], last, 0), ops.where(seen[..., None], h, 0), states

    def _carry(self, x, mask, states, training):
        cell, equations = self.cell, self._equations()
        masked = "any" if not self.return_sequences else "zero" if self.zero_output_for_mask else "hold"
        drops_inputs = training and cell.dropout > 0
        is_split = drops_inputs and getattr(cell, "implementation", 2) == 1  # a dropout mask of its own for each gate
        drops_states = training and cell.recurrent_dropout > 0
        if equations is None or is_split or drops_states or self.use_cudnn is False:
            return plain_recurrence(cell, x, mask, states, training, masked=masked)
        if drops_inputs:
            x = x * ops.expand_dims(cell.get_dropout_mask(x[:, 0]), axis=1)
        kernel, recurrent_kernel = (ops.cast(w, self.compute_dtype) for w in (cell.kernel, cell.recurrent_kernel))
        biases = [ops.cast(bias, self.compute_dtype) for bias in self._biases()]
        options = {"masked": masked, "cell_state": self.return_state or self.stateful, "training": training}
        return recurrence(equations, x, mask, states, kernel, recurrent_kernel, *biases, **options)

    def _biases(self):
        gates = self.cell.kernel.shape[-1]
        return [ops.zeros((gates,)) if self.cell.bias is None else self.cell.bias]

    def _check(self, sequences, initial_state, mask):
        batch, time = sequences.shape[:2]
        if time == 0:
            raise InputError(f"sequences of shape {tuple(sequences.shape)}: no time step; give at least one")
        if mask is not None:
            _check_shape("mask", mask.shape, (batch, time), "(batch, time)")
        if initial_state is None:
            return
        states = initial_state if isinstance(initial_state, (list, tuple)) else [initial_state]
        sizes = self.cell.state_size if isinstance(self.cell.state_size, (list, tuple)) else [self.cell.state_size]
        if len(states) != len(sizes):
            raise InputError(f"initial_state: {len(states)} tensors; {self.name} has {len(sizes)}, (batch, units) each")
        for state, size in zip(states, sizes, strict=True):
            _check_shape("initial_state", getattr(state, "shape", ()), (batch, size), "(batch, units)")


def _check_shape(argument, shape, expected, axes):
    fits = len(shape) == len(expected)
    fits = fits and all(None in pair or pair[0] == pair[1] for pair in zip(shape, expected, strict=True))
    if not fits:
        raise InputError(f"{argument} of shape {tuple(shape)}: give {axes}, here {expected}")


def _gradient_is_known(*functions):
    return all(function in SLOPES for function in functions)


@keras.saving.register_keras_serializable(package="kseq")
class SimpleRNN(Recurrence, keras.layers.SimpleRNN):
    """The vanilla recurrent network: h_t = f(x_t U + h_{t-1} W + b).

    In the lecture's column vectors, h_t = f(U x_t + W h_{t-1} + b). f is tanh unless `activation` says otherwise. With
    `activation="relu", recurrent_initializer="identity"` it is the IRNN of Le, Jaitly & Hinton (arXiv 1504.00941).

    Arguments, weights and their shapes are those of `keras.layers.SimpleRNN`; shapes, masks and errors are those of
    `Recurrence`. Source: Elman, "Finding structure in time", Cognitive Science 14, 1990.
    """

    def _equations(self):
        return SimpleRNNEquations(self.activation) if _gradient_is_known(self.activation) else None


@keras.saving.register_keras_serializable(package="kseq")
class LSTM(Recurrence, keras.layers.LSTM):
    """The long short-term memory, with forget gate and without peepholes.

        i_t = σ(x_t U_i + h_{t-1} W_i + b_i)      input gate
        f_t = σ(x_t U_f + h_{t-1} W_f + b_f)      forget gate
        g_t = tanh(x_t U_g + h_{t-1} W_g + b_g)   candidate
        o_t = σ(x_t U_o + h_{t-1} W_o + b_o)      output gate
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t
        h_t = o_t ⊙ tanh(c_t)

    Weights stand side by side in the order i, f, g, o. σ is `recurrent_activation`, tanh `activation`. States are h, c.

    Arguments, weights and their shapes are those of `keras.layers.LSTM`; shapes, masks and errors are those of
    `Recurrence`. Source: Hochreiter & Schmidhuber, Neural Computation 9, 1997; forget gate: Gers et al., 2000.
    """

    def _equations(self):
        functions = (self.activation, self.recurrent_activation)
        return LSTMEquations(*functions) if _gradient_is_known(*functions) else None


@keras.saving.register_keras_serializable(package="kseq")
class GRU(Recurrence, keras.layers.GRU):
    """The gated recurrent unit.

        z_t = σ(x_t U_z + h_{t-1} W_z + b_z)                    update gate
        r_t = σ(x_t U_r + h_{t-1} W_r + b_r)                    reset gate
        h̃_t = tanh(x_t U_h + (r_t ⊙ h_{t-1}) W_h + b_h)         `reset_after=False`: the lecture's, Cho's
        h̃_t = tanh(x_t U_h + b_h + r_t ⊙ (h_{t-1} W_h + b'_h))  `reset_after=True`, the default: cuDNN's, PyTorch's
        h_t = z_t ⊙ h_{t-1} + (1 − z_t) ⊙ h̃_t                   Cho's equation 7; Chung's z is 1 − z

    Weights stand side by side in the order z, r, h; with `reset_after` the bias is (2, 3 units): b, then b'.
    σ is `recurrent_activation`, tanh `activation`.

    Arguments, weights and their shapes are those of `keras.layers.GRU`; shapes, masks and errors are those of
    `Recurrence`. Source: Cho et al., EMNLP 2014 (arXiv 1406.1078), equations 5–8.
    """

    def _equations(self):
        functions = (self.activation, self.recurrent_activation)
        return GRUEquations(*functions, self.reset_after) if _gradient_is_known(*functions) else None

    def _biases(self):
        if not self.reset_after:
            return super()._biases()
        bias = ops.zeros((2, 3 * self.units)) if self.cell.bias is None else ops.convert_to_tensor(self.cell.bias)
        return [bias[0], bias[1]]


CELLS = {"rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}  # by the names that models and decoders take

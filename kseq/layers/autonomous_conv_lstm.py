"""The convolutional LSTM that goes on without inputs, as in a forecaster."""

from collections.abc import Sequence
from numbers import Integral

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.conv_lstm import ConvLSTM

_OF_INPUT = {  # arguments that mean nothing without one; W_h has the kernel_size, states are given
    "dropout",
    "go_backwards",
    "kernel_initializer",
    "padding",
    "recurrent_kernel_size",
    "stateful",
    "strides",
    "zero_output_for_mask",
}


@keras.saving.register_keras_serializable(package="kseq")
class AutonomousConvLSTM(ConvLSTM):
    """A `ConvLSTM` without input, run on from given states: the equations there with X = 0 and no W_x.

    The first layer of the forecaster of Shi et al. 2015 (arXiv 1506.04214), section 3.3, whose parameters have no W_x.

    Args:
        filters: channels of the states.
        kernel_size: places of W_h along each axis, or one number for all.
        steps: T, the number of steps.
        **kwargs: of `ConvLSTM`, but those of the input and its dropout, of masks, of the direction, and `stateful`.

    Call arguments:
        states: H_0 and C_0, a list of `(batch, *space, filters)` each, space of known sizes.

    Output shape: `(batch, *space, filters)`, or `(batch, steps, *space, filters)` with `return_sequences`; with
    `return_state` also the last H and C.

    Raises:
        InputError: for an argument out of range, or states that do not fit.
    """

    def __init__(self, filters: int, kernel_size: int | Sequence[int], *, steps: int, **kwargs):
        if given := sorted(_OF_INPUT & set(kwargs)):
            raise InputError(f"{given[0]}: there is no input; leave it out")
        super().__init__(filters, kernel_size, **kwargs)
        if not isinstance(steps, Integral) or steps < 1:
            raise InputError(f"steps {steps!r}: give 1 or more")
        self.steps = int(steps)

    def build(self, states_shape):
        state = self._state_shape(states_shape)
        self._build_recurrence(state[1:-1])
        self.built = True

    def call(self, states, training=False):
        self._state_shape([state.shape for state in states])
        _, *space, _ = states[0].shape
        rank = len(self.recurrent_kernel.shape) - 2
        if len(space) != rank:
            raise InputError(
                f"states of shape {tuple(states[0].shape)}: {self.name} was built for {rank} axes of space"
            )
        a = ops.zeros((4 * self.filters,)) if self.bias is None else self.bias
        shape = (self.steps, ops.shape(states[0])[0], *space, 4 * self.filters)
        a = ops.broadcast_to(ops.cast(a, self.compute_dtype), shape)
        h, states = self._carry(a, None, list(states), training)
        return self._outputs(h, states, None, False)

    def compute_output_shape(self, states_shape):
        state = tuple(self._state_shape(states_shape))
        output = (state[0], self.steps, *state[1:]) if self.return_sequences else state
        return (output, state, state) if self.return_state else output

    def compute_mask(self, states, mask=None):
        return None

    def _state_shape(self, shapes):
        if len(shapes) != 2 or any(len(shape) != len(shapes[0]) for shape in shapes):
            raise InputError(f"states: {self.name} has two, H and C; give a list of (batch, *space, filters) each")
        for shape in shapes:
            if not 3 <= len(shape) <= 5 or None in shape[1:] or shape[-1] != self.filters:
                raise InputError(
                    f"states of shape {tuple(shape)}: give (batch, *space, filters), one to three axes of space of "
                    f"known sizes, and {self.filters} filters"
                )
        return shapes[0]

    def get_config(self):
        config = {key: value for key, value in super().get_config().items() if key not in _OF_INPUT}
        return config | {"steps": self.steps}

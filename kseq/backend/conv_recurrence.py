"""The convolutions of a convolutional LSTM and its loop over time, in the form that each backend computes fastest.

TensorFlow and PyTorch differentiate the portable form well. On JAX on CPU the gradient of a kernel takes up to 30 times
as long as the convolution, and in a loop is formed anew at every step; so there both have a gradient of their own, in
which that of a kernel is a sum of products of matrices, one for each place of the window. The loop backwards then forms
only the gradients of the pre-activations, as in `kseq.backend.recurrence`.

Rows are the places of all maps, `(batch · places, channels)`, so that a loop over time carries matrices.
"""

from collections.abc import Callable
from itertools import product
from math import prod

import keras
from keras import ops

from kseq.backend.convolution import Padding, convolution, is_jax_on_cpu, padding_of, portable_convolution
from kseq.backend.recurrence import SLOPES
from kseq.backend.scan import scan, with_gradient


def conv_recurrence(
    a,
    mask,
    states,
    kernel,
    peepholes=None,
    kept=None,
    *,
    activation: Callable,
    recurrent_activation: Callable,
):
    """Run a convolutional LSTM over the pre-activations of a batch of sequences.

        i, f, g, o = a_t + W * h_{t-1}, and with peepholes W_ci ⊙ c_{t-1} in i, W_cf ⊙ c_{t-1} in f, W_co ⊙ c_t in o
        c_t = σ(f) ⊙ c_{t-1} + σ(i) ⊙ tanh(g),   h_t = σ(o) ⊙ tanh(c_t)

    It is `derived_conv_recurrence` on JAX on CPU, there forward and backward in a tenth of the time of
    `portable_conv_recurrence`, which it is elsewhere, and for an activation whose slope is not in `SLOPES`.

    Args:
        a: X * U + b of all frames, `(time, batch, *space, 4 filters)`, the gates i, f, g, o side by side.
        mask: booleans `(time, batch)`, or `None`; where it is false, the states stay.
        states: h_0 and c_0, `(batch, *space, filters)`.
        kernel: W, `(*kernel_size, filters, 4 filters)`; maps are padded with zeros so that they keep their size.
        peepholes: W_ci, W_cf, W_co, `(*space, filters)` each, or `None`.
        kept: of dropout, what every h is multiplied by in front of W, `(batch, *space, filters)`, or `None`.
        activation: tanh.
        recurrent_activation: σ.

    Returns:
        h_1 … h_T, `(time, batch, *space, filters)`, and the last h and c.
    """
    functions = {"activation": activation, "recurrent_activation": recurrent_activation}
    if is_jax_on_cpu() and all(function in SLOPES for function in functions.values()):
        return derived_conv_recurrence(a, mask, states, kernel, peepholes, kept, **functions)
    return portable_conv_recurrence(a, mask, states, kernel, peepholes, kept, **functions, convolve=convolution)


def portable_conv_recurrence(
    a,
    mask,
    states,
    kernel,
    peepholes=None,
    kept=None,
    *,
    activation: Callable,
    recurrent_activation: Callable,
    convolve: Callable = portable_convolution,
):
    """`conv_recurrence`, differentiated by the backend in any way that it can."""
    shape = _MapShape(a, kernel)
    a, mask, states, peepholes, kept = shape.as_rows(a, mask, states, peepholes, kept)

    def step(states, inputs):
        a_t, *valid = inputs
        new, _ = _equations(a_t, states, kernel, peepholes, kept, shape, convolve, activation, recurrent_activation)
        new = _where(valid, new, states)
        return new, (new[0],)

    last, (h,) = scan(step, tuple(states), _present(a, mask), (shape.filters,))
    return shape.sequence(h), [shape.maps(state) for state in last]


def derived_conv_recurrence(
    a,
    mask,
    states,
    kernel,
    peepholes=None,
    kept=None,
    *,
    activation: Callable,
    recurrent_activation: Callable,
):
    """`conv_recurrence` with a gradient of its own, without forward mode; activations are of `SLOPES`."""
    shape = _MapShape(a, kernel)
    slope, gate_slope = SLOPES[activation], SLOPES[recurrent_activation]

    def run(save, a, mask, W, kept, h, c, *peepholes):
        def step(states, inputs):
            a_t, *valid = inputs
            new, gates = _equations(
                a_t, states, W, peepholes, kept, shape, convolution, activation, recurrent_activation
            )
            new = _where(valid, new, states)
            return new, (*new, gates) if save else (new[0],)

        sizes = (1, 1, 4) if save else (1,)
        return scan(step, (h, c), _present(a, mask), tuple(size * shape.filters for size in sizes))

    def primal(*arguments):
        states, (h,) = run(False, *arguments)
        return h, *states

    def forward(*arguments):
        states, (h, c, gates) = run(True, *arguments)
        return (h, *states), (*arguments[1:], h, c, gates)

    def backward(residuals, gradients):
        mask, W, kept, h_0, c_0, W_ci, W_cf, W_co, h, c, gates = residuals
        dh, *d_last = gradients
        h_before, c_before = (ops.concatenate([s[None], after[:-1]], axis=0) for s, after in ((h_0, h), (c_0, c)))
        transposed = _transposed(W)

        def prepare(dh, c_before, c, gates, *valid):
            i, f, g, o = ops.split(gates, 4, axis=-1)
            squashed = activation(c)
            of_i, of_f, of_o = g * gate_slope(i), c_before * gate_slope(f), squashed * gate_slope(o)
            of_cell, carried = o * slope(squashed), f
            if W_ci is not None:
                of_cell = of_cell + shape.times(W_co, of_o)
                carried = carried + shape.times(W_ci, of_i) + shape.times(W_cf, of_f)
            return dh, ops.concatenate([of_i, of_f, i * slope(g), of_o], axis=-1), of_cell, carried, *valid

        def step(d_states, inputs):
            dh_t, of_gates, of_cell, carried, *valid = inputs
            dh, dc = d_states[0] + dh_t, d_states[1]
            d_cell = dc + dh * of_cell
            da = ops.concatenate([d_cell, d_cell, d_cell, dh], axis=-1) * of_gates
            d_h = convolution(shape.maps(da), transposed, strides=shape.ones, padding=_opposite(shape.pads, W))
            d_h = _dropped(shape.rows(d_h), kept)
            return _where(valid, (d_h, d_cell * carried), (dh, dc)), _where(valid, (da,), (0,))

        sequences = _present(dh, c_before, c, gates, mask)
        d_first, (da,) = scan(step, d_last, sequences, (4 * shape.filters,), prepare=prepare, reverse=True)
        d_peepholes = [None] * 3
        if W_ci is not None:
            da_i, da_f, _, da_o = ops.split(da, 4, axis=-1)
            pairs = ((da_i, c_before), (da_f, c_before), (da_o, c))
            d_peepholes = [ops.sum(ops.reshape(d * cell, (-1, *shape.of_peephole)), axis=0) for d, cell in pairs]
        dW = _kernel_gradient(shape.sequence(_dropped(h_before, kept)), shape.sequence(da), W, shape.pads)
        return da, None, dW, None, *d_first, *d_peepholes

    a, mask, states, peepholes, kept = shape.as_rows(a, mask, states, peepholes, kept)
    h, *last = with_gradient(primal, forward, backward)(a, mask, kernel, kept, *states, *peepholes)
    return shape.sequence(h), [shape.maps(state) for state in last]


def frame_convolution(x, kernel, bias=None, *, strides: tuple[int, ...], padding: Padding = "same"):
    """The convolution of all frames in one call; on JAX on CPU, where strides are 1, `derived_frame_convolution`.

    Args:
        x: `(time, batch, *space, channels)`.
        kernel: `(*kernel_size, channels, filters)`.
        bias: `(filters,)`, or `None`.
        strides: of `kseq.backend.convolution.convolution`.
        padding: of that.

    Returns:
        `(time, batch, *places, filters)`.
    """
    if is_jax_on_cpu() and set(strides) == {1}:
        return derived_frame_convolution(x, kernel, bias, padding=padding)
    return portable_frame_convolution(x, kernel, bias, strides=strides, padding=padding)


def portable_frame_convolution(x, kernel, bias=None, *, strides: tuple[int, ...], padding: Padding = "same"):
    """`frame_convolution`, differentiated by the backend."""
    frames = ops.reshape(x, (-1, *x.shape[2:]))  # (time · batch, *space, channels)
    outputs = convolution(frames, kernel, bias, strides=strides, padding=padding)
    return ops.reshape(outputs, (*ops.shape(x)[:2], *outputs.shape[1:]))


def derived_frame_convolution(x, kernel, bias=None, *, padding: Padding = "same"):
    """`frame_convolution` with strides of 1 and a gradient of its own."""
    size, space = tuple(kernel.shape[:-2]), tuple(x.shape[2:-1])
    ones = (1,) * len(size)
    pads = padding_of(padding, size, ones, space)

    def primal(x, kernel, bias):
        return portable_frame_convolution(x, kernel, bias, strides=ones, padding=pads)

    def forward(x, kernel, bias):
        return primal(x, kernel, bias), (x, kernel)

    def backward(residuals, d_outputs):
        x, kernel = residuals
        d_outputs = d_outputs[0] if isinstance(d_outputs, (list, tuple)) else d_outputs
        dx = portable_frame_convolution(d_outputs, _transposed(kernel), strides=ones, padding=_opposite(pads, kernel))
        d_bias = None if bias is None else ops.sum(d_outputs, axis=tuple(range(len(d_outputs.shape) - 1)))
        return dx, _kernel_gradient(x, d_outputs, kernel, pads), d_bias

    return with_gradient(primal, forward, backward)(x, kernel, bias)


def _kernel_gradient(x, d_outputs, kernel, pads):
    """The gradient of a kernel that all frames x are convolved with, a frame at a time: that much fits the cache.

    The sum is in float32 for half precision, in which it would stand still once it is some hundred times its terms.
    """
    size, space, places = tuple(kernel.shape[:-2]), x.shape[2:-1], d_outputs.shape[2:-1]
    channels, filters = kernel.shape[-2:]
    dtype = keras.backend.result_type(x.dtype, "float32")

    def step(states, inputs):
        frames, d_frames = inputs
        frames = ops.pad(ops.reshape(frames, (-1, *space, channels)), [(0, 0), *pads, (0, 0)])
        products = []
        for offset in product(*map(range, size)):
            seen = frames[(slice(None), *(slice(o, o + n) for o, n in zip(offset, places, strict=True)))]
            seen = ops.reshape(seen, (-1, channels))
            products.append(ops.matmul(ops.transpose(seen), d_frames))  # (channels, filters)
        return (states[0] + ops.cast(ops.concatenate(products, axis=0), dtype),), ()

    time, batch = ops.shape(x)[:2]
    sequences = (
        ops.reshape(x, (time, batch * prod(space), channels)),
        ops.reshape(d_outputs, (time, batch * prod(places), filters)),
    )
    (total,), _ = scan(step, (ops.zeros((prod(size) * channels, filters), dtype=dtype),), sequences, ())
    return ops.cast(ops.reshape(total, kernel.shape), kernel.dtype)


def _transposed(kernel):
    """The kernel of the convolution that carries gradients back."""
    return ops.swapaxes(ops.flip(kernel, axis=tuple(range(len(kernel.shape) - 2))), -1, -2)


def _opposite(pads, kernel):
    """The zeros around the gradients of the outputs, of a convolution with `pads` around its inputs."""
    return tuple((k - 1 - before, k - 1 - behind) for k, (before, behind) in zip(kernel.shape, pads, strict=False))


def _equations(a, states, W, peepholes, kept, shape, convolve, activation, recurrent_activation):
    """The states after a step, and i, f, g, o of it side by side; all are rows."""
    h, c = states
    W_ci, W_cf, W_co = peepholes
    a = a + shape.rows(convolve(shape.maps(_dropped(h, kept)), W, strides=shape.ones, padding=shape.pads))
    i, f, g, o = ops.split(a, 4, axis=-1)
    if W_ci is not None:
        i, f = i + shape.times(W_ci, c), f + shape.times(W_cf, c)
    i, f, g = recurrent_activation(i), recurrent_activation(f), activation(g)
    c = f * c + i * g
    o = recurrent_activation(o if W_co is None else o + shape.times(W_co, c))
    return (o * activation(c), c), ops.concatenate([i, f, g, o], axis=-1)


class _MapShape:
    """Maps `(batch, *space, channels)` as rows `(batch · places, channels)`, and back."""

    def __init__(self, a, kernel):
        self.time, self.batch = ops.shape(a)[:2]
        self.space, self.filters = tuple(a.shape[2:-1]), a.shape[-1] // 4
        self.of_peephole = (prod(self.space), self.filters)
        self.ones = (1,) * len(self.space)
        self.pads = padding_of("same", tuple(kernel.shape[:-2]), self.ones, self.space)

    def as_rows(self, a, mask, states, peepholes, kept):
        places = self.of_peephole[0]
        a = ops.reshape(a, (self.time, self.batch * places, a.shape[-1]))
        if mask is not None:
            mask = ops.reshape(ops.repeat(mask[..., None], places, axis=-1), (self.time, self.batch * places, 1))
        peepholes = [None] * 3 if peepholes is None else [ops.reshape(W, self.of_peephole) for W in peepholes]
        kept = None if kept is None else self.rows(kept)
        return a, mask, [self.rows(state) for state in states], peepholes, kept

    def maps(self, rows):
        return ops.reshape(rows, (-1, *self.space, rows.shape[-1]))

    def rows(self, maps):
        return ops.reshape(maps, (-1, maps.shape[-1]))

    def sequence(self, rows):
        return ops.reshape(rows, (self.time, self.batch, *self.space, rows.shape[-1]))

    def times(self, W, c):
        """W ⊙ c in every map, for rows c of one step or of several."""
        return ops.reshape(ops.reshape(c, (-1, *self.of_peephole)) * W, ops.shape(c))


def _dropped(h, kept):
    return h if kept is None else h * kept


def _present(*tensors):
    return tuple(tensor for tensor in tensors if tensor is not None)


def _where(condition, new, old):
    """Choose between tensors by `condition`, a list of one tensor of booleans, or of none: then all are new."""
    return tuple(ops.where(condition[0], n, o) if condition else n for n, o in zip(new, old, strict=True))

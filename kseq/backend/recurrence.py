"""The recurrent equations with a gradient of their own: gates are saved, and each weight's gradient is one product.

A backend that differentiates a loop forms the gradient of every weight anew at every step and adds the T of them up.
Here the loop backwards forms only the gradients of the pre-activations; the others follow for all steps at once. All
that these are multiplied by (`factors`) is known before the loop.

Of a cell, `a` is x_t U + b, `states` are h, c before the step, `saved` is what `forward` saves of it; `factors` works
on any number of steps at once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import activations, ops

from kseq.backend.scan import scan, with_gradient

# f'(a) as a function of the output y = f(a)
SLOPES: dict[Callable, Callable] = {
    activations.tanh: lambda y: 1 - y * y,
    activations.sigmoid: lambda y: y * (1 - y),
    activations.relu: lambda y: ops.cast(y > 0, y.dtype),
    activations.linear: ops.ones_like,
}


@dataclass(frozen=True)
class SimpleRNNEquations:
    """h_t = f(a_t + h_{t-1} W)."""

    activation: Callable
    gates = 1
    saved = ()  # how many times `units` numbers a step saves beside its states

    def forward(self, a, states, W, _):
        (h,) = states
        return (self.activation(a + ops.matmul(h, W)),), ()

    def factors(self, before, after, saved):
        return (SLOPES[self.activation](after[0]),)

    def backward(self, factors, gradients, W):
        (dh,), (slope,) = gradients, factors
        da = dh * slope
        return da, (ops.matmul(da, ops.transpose(W)),)

    def recurrent_gradient(self, da, h_before, saved):
        return _product(h_before, da), None


@dataclass(frozen=True)
class LSTMEquations:
    """c_t = f c_{t-1} + i g, h_t = o f(c_t), the gates i, f, g, o of a_t + h_{t-1} W side by side."""

    activation: Callable
    recurrent_activation: Callable
    gates = 4
    saved = (4,)  # i, f, g, o

    def forward(self, a, states, W, _):
        h, c = states
        i, f, g, o = ops.split(a + ops.matmul(h, W), 4, axis=-1)
        i, f, o = (self.recurrent_activation(gate) for gate in (i, f, o))
        g = self.activation(g)
        c = f * c + i * g
        return (o * self.activation(c), c), (ops.concatenate([i, f, g, o], axis=-1),)

    def factors(self, before, after, saved):
        (_, c_before), (_, c) = before, after
        i, f, g, o = ops.split(saved[0], 4, axis=-1)
        slope, gate_slope = SLOPES[self.activation], SLOPES[self.recurrent_activation]
        squashed = self.activation(c)
        of_gates = [g * gate_slope(i), c_before * gate_slope(f), i * slope(g), squashed * gate_slope(o)]
        return ops.concatenate(of_gates, axis=-1), o * slope(squashed), f

    def backward(self, factors, gradients, W):
        (dh, dc), (of_gates, of_cell, f) = gradients, factors
        dc = dc + dh * of_cell
        da = ops.concatenate([dc, dc, dc, dh], axis=-1) * of_gates
        return da, (ops.matmul(da, ops.transpose(W)), dc * f)

    def recurrent_gradient(self, da, h_before, saved):
        return _product(h_before, da), None


@dataclass(frozen=True)
class GRUEquations:
    """h_t = z h_{t-1} + (1 − z) h̃, with h̃ = f(a + (r h_{t-1}) W) or, `reset_after`, f(a + r (h_{t-1} W + b))."""

    activation: Callable
    recurrent_activation: Callable
    reset_after: bool
    gates = 3

    @property
    def saved(self):
        return (4,) if self.reset_after else (3,)  # z, r, h̃ and, after, h_{t-1} W + b

    def forward(self, a, states, W, b):
        (h,) = states
        u = h.shape[-1]
        if self.reset_after:
            product = ops.matmul(h, W) + b
            zr = self.recurrent_activation(a[:, : 2 * u] + product[:, : 2 * u])
            z, r = zr[:, :u], zr[:, u:]
            new = self.activation(a[:, 2 * u :] + r * product[:, 2 * u :])
            saved = [zr, new, product[:, 2 * u :]]
        else:
            zr = self.recurrent_activation(a[:, : 2 * u] + ops.matmul(h, W[:, : 2 * u]))
            z, r = zr[:, :u], zr[:, u:]
            new = self.activation(a[:, 2 * u :] + ops.matmul(r * h, W[:, 2 * u :]))
            saved = [zr, new]
        return (new + z * (h - new),), (ops.concatenate(saved, axis=-1),)

    def factors(self, before, after, saved):
        (h_before,) = before
        z, r, new, *product = ops.split(saved[0], self.saved[0], axis=-1)
        slope, gate_slope = SLOPES[self.activation], SLOPES[self.recurrent_activation]
        of_z, of_new = (h_before - new) * gate_slope(z), (1 - z) * slope(new)
        if self.reset_after:
            return ops.concatenate([of_z, of_new * product[0] * gate_slope(r), of_new, of_new * r], axis=-1), z
        return of_z, h_before * gate_slope(r), of_new, z, r

    def backward(self, factors, gradients, W):
        (dh,) = gradients
        u = dh.shape[-1]
        if self.reset_after:
            of_gates, z = factors
            d = ops.concatenate([dh] * 4, axis=-1) * of_gates
            inner = ops.concatenate([d[:, : 2 * u], d[:, 3 * u :]], axis=-1)  # of h_{t-1} W + b
            return d[:, : 3 * u], (ops.matmul(inner, ops.transpose(W)) + dh * z,)
        of_z, of_r, of_new, z, r = factors
        dnew = dh * of_new
        dreset = ops.matmul(dnew, ops.transpose(W[:, 2 * u :]))  # of r h_{t-1}
        dzr = ops.concatenate([dh * of_z, dreset * of_r], axis=-1)
        d_before = dh * z + dreset * r + ops.matmul(dzr, ops.transpose(W[:, : 2 * u]))
        return ops.concatenate([dzr, dnew], axis=-1), (d_before,)

    def recurrent_gradient(self, da, h_before, saved):
        u = h_before.shape[-1]
        r = saved[0][..., u : 2 * u]
        if self.reset_after:
            inner = ops.concatenate([da[..., : 2 * u], da[..., 2 * u :] * r], axis=-1)
            return _product(h_before, inner), ops.sum(inner, axis=(0, 1))
        products = [_product(h_before, da[..., : 2 * u]), _product(r * h_before, da[..., 2 * u :])]
        return ops.concatenate(products, axis=-1), None


def recurrence(
    equations,
    x,
    mask,
    states,
    kernel,
    recurrent_kernel,
    bias,
    recurrent_bias=None,
    *,
    masked="hold",
    cell_state=True,
    training=True,
):
    """Run a recurrent layer over a batch of sequences.

    Args:
        equations: of the cell.
        x: inputs `(batch, time, dim)`.
        mask: booleans `(batch, time)`, or `None`; where it is false, the states stay, and x may be NaN.
        states: tensors `(batch, units)` before the first step, h first.
        kernel: U, `(dim, gates * units)`.
        recurrent_kernel: W, `(units, gates * units)`.
        bias: `(gates * units,)`.
        recurrent_bias: `(gates * units,)`, added to W h, of `GRUEquations` with `reset_after`.
        masked: h at masked steps: that of the last valid step, or h_0 before the first ("hold"), "zero", or "any".
        cell_state: whether the last c of an LSTM is wanted.
        training: whether a gradient is to be expected.

    Returns:
        h_1 … h_T, `(batch, time, units)`, and the states after the last step.
    """
    if mask is not None:
        x = ops.where(mask[..., None], x, 0)  # 0 · NaN would be the gradient of a weight
    hoisted = keras.backend.backend() != "jax"  # x_t U for all t in one product; under XLA one at each step is faster
    units, count = recurrent_kernel.shape[0], len(states)

    def run(save, x, mask, U, b, W, recurrent_bias, *states):
        def project(x):
            return _dense(x, U) + b

        def step(states, inputs):
            x_t, *valid = inputs
            new, saved = equations.forward(x_t if hoisted else project(x_t), states, W, recurrent_bias)
            new = _where(valid, new, states)
            return new, (*new, *saved) if save else (new[0],)

        sizes = (*[1] * count, *equations.saved) if save else (1,)
        sequences = _present(project(x) if hoisted else x, mask)
        return scan(step, states, sequences, tuple(size * units for size in sizes))

    def primal(*arguments):
        states, (h,) = run(False, *arguments)
        return h, *states

    def forward(*arguments):
        states, (h, *rest) = run(True, *arguments)
        return (h, *states), (*arguments, h, *rest)

    def backward(residuals, gradients):
        x, mask, U, _, W, _, *first = residuals[: 6 + count]
        after, saved = residuals[6 + count : 6 + 2 * count], residuals[6 + 2 * count :]
        before = [ops.concatenate([s[None], a[:-1]], axis=0) for s, a in zip(first, after, strict=True)]
        dh, *d_last = gradients

        def prepare(dh, *rest):
            before, after, saved = rest[:count], rest[count : 2 * count], rest[2 * count :]
            *saved, valid = (*saved, None) if mask is None else saved
            return _present(dh, valid, *equations.factors(before, after, saved))

        def step(d_states, inputs):
            dh_t, *factors = inputs
            valid = [] if mask is None else [factors.pop(0)]
            d_states = (d_states[0] + dh_t, *d_states[1:])
            da, d_before = equations.backward(factors, d_states, W)
            return _where(valid, d_before, d_states), _where(valid, (da,), (0,))

        sequences = _present(dh, *before, *after, *saved, mask)
        d_first, (da,) = scan(step, d_last, sequences, (equations.gates * units,), prepare=prepare, reverse=True)
        dW, d_recurrent_bias = equations.recurrent_gradient(da, before[0], saved)
        return (
            _dense(da, ops.transpose(U)),
            None,
            _product(x, da),
            ops.sum(da, (0, 1)),
            dW,
            d_recurrent_bias,
            *d_first,
        )

    x = ops.transpose(x, (1, 0, 2))  # (time, batch, dim)
    mask = None if mask is None else ops.transpose(mask)[..., None]  # (time, batch, 1)
    arguments = (x, mask, kernel, bias, recurrent_kernel, recurrent_bias, *states)
    h, *last = with_gradient(primal, forward, backward, training=training)(*arguments)
    if masked == "zero" and mask is not None:
        h = ops.where(mask, h, 0)
    return ops.transpose(h, (1, 0, 2)), list(last)


def _present(*tensors):
    return tuple(tensor for tensor in tensors if tensor is not None)


def _where(condition, new, old):
    """Choose between tensors by `condition`, a list of one tensor of booleans, or of none: then all are new."""
    return tuple(ops.where(condition[0], n, o) if condition else n for n, o in zip(new, old, strict=True))


def _dense(x, kernel):
    """X · kernel over the last axis, as one product of matrices: faster than one of higher rank (JAX, TensorFlow)."""
    if len(x.shape) == 2:
        return ops.matmul(x, kernel)
    rows = ops.matmul(ops.reshape(x, (-1, x.shape[-1])), kernel)
    return ops.reshape(rows, (*ops.shape(x)[:-1], kernel.shape[-1]))


def _product(x, y):
    """Σ over time and batch of the outer products of x and y, `(size of x, size of y)`."""
    x, y = ops.reshape(x, (-1, x.shape[-1])), ops.reshape(y, (-1, y.shape[-1]))
    return ops.matmul(ops.transpose(x), y)

"""Recurrent equations that look at an encoded sequence in each step, with a gradient of their own.

As in `kseq.backend.recurrence`, the loop backwards forms only what the step before needs; the gradient of each weight
is one product over all steps. The hidden layer of the additive alignment, `(batch, source_time, size)` at each step,
is computed again there and not kept: it would be the largest tensor of the model, `time` times over.
"""

import keras
from keras import ops

from kseq.backend.attention import LOWEST
from kseq.backend.recurrence import _dense, _product
from kseq.backend.scan import scan, with_gradient


def attend(scores, mask, memory):
    """Weights softmax(scores) `(…, source_time)` and the weighted sum of `memory` `(batch, source_time, size)`.

    Args:
        scores: `(batch, source_time)` or `(batch, queries, source_time)`.
        mask: booleans `(batch, source_time)` or `None`; where it is false the weight is 0.
        memory: what is summed.
    """
    is_vector = len(scores.shape) == 2
    scores = ops.cast(scores[:, None] if is_vector else scores, "float32")
    if mask is not None:
        mask = mask[:, None]
        scores = ops.where(mask, scores, LOWEST)
    weights = ops.softmax(scores, axis=-1)
    if mask is not None:
        weights = ops.where(mask, weights, 0)
    weights = ops.cast(weights, memory.dtype)
    context = ops.matmul(weights, memory)
    return (weights[:, 0], context[:, 0]) if is_vector else (weights, context)


def additive_scores(query, keys, v):
    """Scores v · tanh(query + keys), `(batch, source_time)`, of `(batch, size)` and `(batch, source_time, size)`."""
    hidden = ops.tanh(keys + query[:, None])
    if keras.backend.backend() == "jax":  # one pass under XLA, which a product would break in two
        return ops.sum(hidden * v, axis=-1)
    return ops.matmul(hidden, v[:, None])[..., 0]


def dot_scores(query, keys):
    """Scores query · keys, `(batch, source_time)`, of `(batch, size)` and `(batch, source_time, size)`."""
    return ops.matmul(keys, query[..., None])[..., 0]


def additive_recurrence(
    equations,
    a,
    states,
    memory,
    mask,
    keys,
    query_kernel,
    v,
    context_kernel,
    recurrent_kernel,
    recurrent_bias=None,
    *,
    training=True,
):
    """Bahdanau's decoder: the state before the step looks at the memory, and what it sees enters the step.

        e_tj = v · tanh(s_{t-1} W_q + keys_j),  w_t = softmax(e_t),  c_t = Σ_j w_tj memory_j
        s_t = cell(a_t + c_t U_c, s_{t-1})

    Args:
        equations: of the cell.
        a: x_t U + b of all steps, `(batch, time, gates * units)`.
        states: tensors `(batch, units)` before the first step, s first.
        memory: `(batch, source_time, memory_dim)`, finite everywhere.
        mask: booleans `(batch, source_time)` or `None`.
        keys: `(batch, source_time, size)`.
        query_kernel: W_q, `(units, size)`.
        v: `(size,)`.
        context_kernel: U_c, `(memory_dim, gates * units)`.
        recurrent_kernel: W, `(units, gates * units)`.
        recurrent_bias: of `GRUEquations` with `reset_after`.
        training: whether a gradient is to be expected.

    Returns:
        s_1 … s_T `(batch, time, units)`, c_1 … c_T `(batch, time, memory_dim)` and w_1 … w_T
        `(batch, time, source_time)`.
    """
    units, count = recurrent_kernel.shape[0], len(states)

    def run(save, a, memory, mask, keys, Q, v, C, W, recurrent_bias, *states):
        def step(states, inputs):
            new, saved, seen, weights, query = additive_step(
                equations, inputs[0], states, memory, mask, keys, Q, v, C, W, recurrent_bias
            )
            return new, (new[0], seen, weights, *((query, *new[1:], *saved) if save else ()))

        sizes = (units, memory.shape[-1], keys.shape[1])
        if save:
            sizes += (Q.shape[-1], *[units] * (count - 1), *(size * units for size in equations.saved))
        return scan(step, states, (a,), sizes)[1]

    def primal(*arguments):
        return tuple(run(False, *arguments))

    def forward(*arguments):
        outputs = run(True, *arguments)
        return tuple(outputs[:3]), (*arguments, *outputs)

    def backward(residuals, gradients):
        _, memory, _, keys, Q, v, C, W, _, *first = residuals[: 9 + count]
        s, seen, weights, query, *rest = residuals[9 + count :]
        after, saved = [s, *rest[: count - 1]], rest[count - 1 :]
        before = _before(first, after)
        ds, d_seen, d_weights = gradients
        Q_transposed, C_transposed = ops.transpose(Q), ops.transpose(C)

        def prepare(ds, d_seen, d_weights, query, weights, *rest):
            before, after, saved = rest[:count], rest[count : 2 * count], rest[2 * count :]
            return ds, d_seen, d_weights, query, weights, *equations.factors(before, after, saved)

        def step(carried, inputs):
            *d_states, d_hidden = carried
            ds, d_seen, d_weights, query, weights, *factors = inputs
            da, d_before = equations.backward(factors, (d_states[0] + ds, *d_states[1:]), W)
            d_seen = d_seen + ops.matmul(da, C_transposed)
            d_scores = _score_gradient(weights, d_weights, d_seen, memory)
            hidden = ops.tanh(keys + query[:, None])  # (batch, source_time, size)
            of_hidden = d_scores[..., None] * (1 - hidden * hidden)
            dv = _weighted_sum(d_scores, hidden)
            d_query = ops.sum(of_hidden, axis=1) * v
            d_before = (d_before[0] + ops.matmul(d_query, Q_transposed), *d_before[1:])
            d_hidden = d_hidden + ops.cast(of_hidden, "float32")
            return (*d_before, d_hidden), (da, d_seen, dv, d_query)

        sequences = (ds, d_seen, d_weights, query, weights, *before, *after, *saved)
        sizes = (equations.gates * units, memory.shape[-1], Q.shape[-1], Q.shape[-1])
        carried = (*map(ops.zeros_like, first), ops.zeros_like(keys, dtype="float32"))
        (*d_first, d_hidden), (da, d_seen, dv, d_query) = scan(
            step, carried, sequences, sizes, prepare=prepare, reverse=True
        )
        dW, d_recurrent_bias = equations.recurrent_gradient(da, before[0], saved)
        return (
            da,
            _outer(weights, d_seen),
            None,
            ops.cast(d_hidden, keys.dtype) * v,
            _product(before[0], d_query),
            ops.sum(dv, axis=(0, 1)),
            _product(seen, da),
            dW,
            d_recurrent_bias,
            *d_first,
        )

    arguments = (_swap(a), memory, mask, keys, query_kernel, v, context_kernel, recurrent_kernel, recurrent_bias)
    outputs = with_gradient(primal, forward, backward, training=training)(*arguments, *states)
    return tuple(map(_swap, outputs))


def additive_step(equations, a, states, memory, mask, keys, query_kernel, v, context_kernel, kernel, bias):
    """One step of `additive_recurrence`: the states after it, what the cell saves, c_t, w_t and s_{t-1} W_q."""
    query = ops.matmul(states[0], query_kernel)
    weights, seen = attend(additive_scores(query, keys, v), mask, memory)
    new, saved = equations.forward(a + ops.matmul(seen, context_kernel), states, kernel, bias)
    return new, saved, seen, weights, query


def fed_recurrence(
    equations,
    a,
    states,
    memory,
    mask,
    keys,
    vector_kernel,
    fed_kernel,
    recurrent_kernel,
    recurrent_bias=None,
    *,
    training=True,
):
    """Luong's decoder with input feeding: the attention vector of a step is an input of the next one.

        s_t = cell(a_t + h̃_{t-1} U_f, s_{t-1})
        w_t = softmax_j(s_t · keys_j),  c_t = Σ_j w_tj memory_j,  h̃_t = tanh([c_t; s_t] W_c)

    Args:
        equations: of the cell.
        a: x_t U + b of all steps, `(batch, time, gates * units)`.
        states: tensors before the first step: those of the cell `(batch, units)`, s first, and h̃ `(batch, size)`.
        memory: `(batch, source_time, memory_dim)`, finite everywhere.
        mask: booleans `(batch, source_time)` or `None`.
        keys: `(batch, source_time, units)`.
        vector_kernel: W_c, `(memory_dim + units, size)`.
        fed_kernel: U_f, `(size, gates * units)`.
        recurrent_kernel: W, `(units, gates * units)`.
        recurrent_bias: of `GRUEquations` with `reset_after`.
        training: whether a gradient is to be expected.

    Returns:
        h̃_1 … h̃_T `(batch, time, size)` and w_1 … w_T `(batch, time, source_time)`.
    """
    units, count = recurrent_kernel.shape[0], len(states) - 1

    def run(save, a, memory, mask, keys, V, F, W, recurrent_bias, *states):
        def step(states, inputs):
            new, saved, seen, weights = fed_step(
                equations, inputs[0], states, memory, mask, keys, V, F, W, recurrent_bias
            )
            return new, (new[-1], weights, *((seen, *new[:-1], *saved) if save else ()))

        sizes = (V.shape[-1], keys.shape[1])
        if save:
            sizes += (memory.shape[-1], *[units] * count, *(size * units for size in equations.saved))
        return scan(step, states, (a,), sizes)[1]

    def primal(*arguments):
        return tuple(run(False, *arguments))

    def forward(*arguments):
        outputs = run(True, *arguments)
        return tuple(outputs[:2]), (*arguments, *outputs)

    def backward(residuals, gradients):
        _, memory, _, keys, V, F, W, _, *first = residuals[: 9 + count]
        vector, weights, seen, *rest = residuals[9 + count :]
        after, saved = rest[:count], rest[count:]
        before = _before(first, [*after, vector])
        V_transposed, F_transposed = ops.transpose(V), ops.transpose(F)

        def prepare(d_vector, d_weights, vector, weights, *rest):
            before, after, saved = rest[:count], rest[count : 2 * count], rest[2 * count :]
            return d_vector, d_weights, 1 - vector * vector, weights, *equations.factors(before, after, saved)

        def step(carried, inputs):
            *d_states, d_fed = carried
            d_vector, d_weights, slope, weights, *factors = inputs
            d_vector = (d_vector + d_fed) * slope
            d_both = ops.matmul(d_vector, V_transposed)
            d_seen, ds = d_both[:, :-units], d_both[:, -units:]
            d_scores = _score_gradient(weights, d_weights, d_seen, memory)
            ds = ds + _weighted_sum(d_scores, keys) + d_states[0]
            da, d_before = equations.backward(factors, (ds, *d_states[1:]), W)
            return (*d_before, ops.matmul(da, F_transposed)), (da, d_vector, d_seen, d_scores)

        sequences = (*gradients, vector, weights, *before[:-1], *after, *saved)
        sizes = (equations.gates * units, V.shape[-1], memory.shape[-1], keys.shape[1])
        d_first, (da, d_vector, d_seen, d_scores) = scan(
            step, tuple(map(ops.zeros_like, first)), sequences, sizes, prepare=prepare, reverse=True
        )
        dW, d_recurrent_bias = equations.recurrent_gradient(da, before[0], saved)
        return (
            da,
            _outer(weights, d_seen),
            None,
            _outer(d_scores, after[0]),
            ops.concatenate([_product(seen, d_vector), _product(after[0], d_vector)], axis=0),
            _product(before[-1], da),
            dW,
            d_recurrent_bias,
            *d_first,
        )

    arguments = (_swap(a), memory, mask, keys, vector_kernel, fed_kernel, recurrent_kernel, recurrent_bias)
    outputs = with_gradient(primal, forward, backward, training=training)(*arguments, *states)
    return tuple(map(_swap, outputs))


def fed_step(equations, a, states, memory, mask, keys, vector_kernel, fed_kernel, kernel, bias):
    """One step of `fed_recurrence`: the states after it, h̃_t last, what the cell saves, c_t and w_t."""
    *states, fed = states
    new, saved = equations.forward(a + ops.matmul(fed, fed_kernel), states, kernel, bias)
    weights, seen = attend(dot_scores(new[0], keys), mask, memory)
    vector = attention_vector(seen, new[0], vector_kernel)
    return (*new, vector), saved, seen, weights


def attention_vector(seen, state, kernel):
    """h̃ = tanh([c; s] W_c)."""
    return ops.tanh(_dense(ops.concatenate([seen, state], axis=-1), kernel))


def _before(first, after):
    """The states before each step, `(time, batch, size)`, from the first ones and those after each step."""
    return [ops.concatenate([f[None], a[:-1]], axis=0) for f, a in zip(first, after, strict=True)]


def _score_gradient(weights, d_weights, d_seen, memory):
    """The gradient of scores `(batch, source_time)`, from those of their softmax and of what was seen."""
    d_weights = ops.cast(d_weights + dot_scores(d_seen, memory), "float32")
    weights = ops.cast(weights, "float32")
    d_scores = weights * (d_weights - ops.sum(weights * d_weights, axis=-1, keepdims=True))
    return ops.cast(d_scores, memory.dtype)


def _weighted_sum(weights, memory):
    """Σ_j weights_j memory_j, `(batch, size)`."""
    return ops.matmul(weights[:, None], memory)[:, 0]


def _outer(x, y):
    """Σ over time of the outer products of x `(time, batch, m)` and y `(time, batch, n)`: `(batch, m, n)`."""
    return ops.matmul(ops.transpose(x, (1, 2, 0)), _swap(y))


def _swap(x):
    """`(batch, time, size)` to `(time, batch, size)`, and back."""
    return ops.transpose(x, (1, 0, 2))

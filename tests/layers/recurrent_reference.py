"""The recurrent equations and the rules of masking as a loop in NumPy (float64), for one layer on one batch."""

import numpy as np

FUNCTIONS = {
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "linear": lambda a: a,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
}


def simple_rnn(x, states, U, W, b, drop_x, drop_h, f):
    (h,) = states
    return [f(x * drop_x[0] @ U + h * drop_h[0] @ W + b)]


def lstm(x, states, U, W, b, drop_x, drop_h, f):
    h, c = states
    sigmoid = FUNCTIONS["sigmoid"]
    a = [
        x * dx @ U_k + h * dh @ W_k + b_k
        for dx, dh, U_k, W_k, b_k in zip(drop_x, drop_h, *(np.split(v, 4, -1) for v in (U, W, b)), strict=True)
    ]
    i, forget, g, o = sigmoid(a[0]), sigmoid(a[1]), f(a[2]), sigmoid(a[3])
    c = forget * c + i * g
    return [o * f(c), c]


def gru(x, states, U, W, b, drop_x, drop_h, f):
    (h,) = states
    sigmoid = FUNCTIONS["sigmoid"]
    reset_after = np.ndim(b) == 2
    b, b_recurrent = b if reset_after else (b, 0 * b)
    (U_z, U_r, U_h), (W_z, W_r, W_h) = np.split(U, 3, -1), np.split(W, 3, -1)
    (b_z, b_r, b_h), (v_z, v_r, v_h) = np.split(b, 3), np.split(b_recurrent, 3)
    z = sigmoid(x * drop_x[0] @ U_z + b_z + h * drop_h[0] @ W_z + v_z)
    r = sigmoid(x * drop_x[1] @ U_r + b_r + h * drop_h[1] @ W_r + v_r)
    if reset_after:
        new = f(x * drop_x[2] @ U_h + b_h + r * (h * drop_h[2] @ W_h + v_h))
    else:
        new = f(x * drop_x[2] @ U_h + b_h + (r * h * drop_h[2]) @ W_h)
    return [z * h + (1 - z) * new]


def run(step, x, mask, states, weights, drop_x, drop_h, f, *, go_backwards, zero_output_for_mask):
    """Return the last output, all outputs `(batch, time, units)`, the last states; nothing is vectorised over rows."""
    batch, time, _ = x.shape
    outputs = np.zeros((batch, time, states[0].shape[1]))
    last_states = [np.array(state, dtype="float64") for state in states]
    for row in range(batch):
        state = [s[row] for s in last_states]
        output = np.zeros(outputs.shape[2])
        for position, t in enumerate(reversed(range(time)) if go_backwards else range(time)):
            if mask is None or mask[row, t]:
                drops = [[d[row] for d in drop] for drop in (drop_x, drop_h)]
                state = step(x[row, t].astype("float64"), state, *weights, *drops, f)
                output = shown = state[0]
            else:
                shown = np.zeros_like(output) if zero_output_for_mask else output
            outputs[row, position] = shown
        for array, value in zip(last_states, state, strict=True):
            array[row] = value
    return outputs[:, -1], outputs, last_states

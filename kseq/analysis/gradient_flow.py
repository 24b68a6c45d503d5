"""Why gradients vanish or explode: the exact derivatives of a recurrent layer's states by its earlier states."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kseq.analysis.jacobian import gradient, row_jacobians
from kseq.errors import InputError, shorten

# sup |f'|, of the activations whose slope is bounded
_SLOPES = {
    keras.activations.linear: 1.0,
    keras.activations.relu: 1.0,
    keras.activations.tanh: 1.0,
    keras.activations.softsign: 1.0,
    keras.activations.sigmoid: 1 / 4,
    keras.activations.hard_sigmoid: 1 / 6,
}


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """How much of the gradient at step t arrives at step k, for each sample; all arrays are NumPy's, in float64.

    Steps are counted from 0, in the order in which the layer reads them: index t belongs to the layer's output
    `[:, t]` of `return_sequences=True`. Where k > t there is no derivative, and the arrays hold NaN. Beyond 1e308 they
    hold infinity.

    Attributes:
        norms: ‖∂s_t/∂s_k‖₂, the largest singular value, `(batch, time t, time k)`. The state s is everything that a
            step hands to the next: h of a vanilla network and a GRU, the pair (h, c) of an LSTM.
        hidden_norms: ‖∂h_t/∂h_k‖₂, `(batch, time t, time k)`: the block of the output h alone. Equal to `norms` where
            h is the whole state; in an LSTM it leaves out what c carries past the output.
        bound: (β_w β_h)^n ≥ ‖∂h_t/∂h_k‖₂, `(batch, time t, time k)`, n = t − k less the masked steps; `None` where it
            is not defined.
        beta_w: β_w = ‖W‖₂, the largest singular value of the recurrent matrix, or `None`.
        beta_h: β_h = sup |f′| of the activation f, or `None`.
        note: why there is no bound; empty if there is one.
        loss_gradients: ‖∂L/∂s_t‖₂ of a loss L of the last h, `(batch, time)`.
    """

    norms: np.ndarray
    hidden_norms: np.ndarray
    bound: np.ndarray | None
    beta_w: float | None
    beta_h: float | None
    note: str
    loss_gradients: np.ndarray

    @property
    def decay(self) -> np.ndarray:
        """‖∂s_T/∂s_{T−n}‖₂ of the last step T, for n = 0, 1, …: `(batch, time)`."""
        return self.norms[:, -1, ::-1]

    def steps_to_lose(self, share: float = 0.999) -> int | None:
        """The first n at which ‖∂s_T/∂s_{T−n}‖₂, in the median of the samples, is below 1 − `share`.

        Returns:
            The number of steps; `None` if the sequence ends before.

        Raises:
            InputError: if `share` is not between 0 and 1.
        """
        if not 0 < share < 1:
            raise InputError(f"share {share!r}: give a number between 0 and 1, such as 0.999")
        lost = np.median(self.decay, axis=0) < 1 - share
        return int(lost.argmax()) if lost.any() else None


@dataclass(frozen=True, eq=False)
class Steps:
    """The states of a recurrent layer and the derivative of each step, as NumPy arrays.

    Attributes:
        states: s_{−1}, s_0, …, s_T, `(batch, time + 1, state)`, the initial state first, in the layer's own precision;
            an LSTM's state is (h, c), one after the other.
        jacobians: J_t = ∂s_t/∂s_{t−1}, `(batch, time, state, state)`, J[i, j] = ∂(s_t)_i/∂(s_{t−1})_j; the identity at
            masked steps, which keep the state. In float64, from derivatives in the layer's own precision.
        hidden: which part of the state is h, the output.
        taken: whether a step is not masked, `(batch, time)`.
    """

    states: np.ndarray
    jacobians: np.ndarray
    hidden: slice
    taken: np.ndarray


def gradient_flow(
    layer: keras.layers.Layer, inputs, initial_state=None, *, mask=None, loss: Callable | None = None
) -> GradientFlow:
    """Measure how the gradient shrinks or grows on its way back through a recurrent layer.

    By the chain rule

        ∂s_t/∂s_k = J_t J_{t−1} … J_{k+1},    J_j = ∂s_j/∂s_{j−1},

    exactly: every J_j comes from automatic differentiation of the layer's own cell at the states that it reached, the
    products and their largest singular values are computed in float64. In a vanilla network h_j = f(U x_j + W h_{j−1} +
    b) the factor is J_j = diag(f′(a_j)) W, with a_j the argument of f, so that

        ‖∂h_t/∂h_k‖₂ ≤ (β_w β_h)^(t−k),    β_w = ‖W‖₂,  β_h = sup |f′|  (1 for tanh and ReLU, 1/4 for the sigmoid).

    β_w is the largest *singular* value of W, not its largest eigenvalue, which bounds no product: W = [[0, 2], [0, 0]]
    has the eigenvalue 0 alone, and doubles a vector. And the inequality has one direction: β_w β_h < 1 is sufficient
    for the gradient to vanish; β_w β_h > 1 is only necessary for it to explode, and saturated units, whose f′ is near
    0, make it vanish all the same.

    The loss L depends on the last h alone: ∂L/∂s_t = (∂s_T/∂s_t)ᵀ ∂L/∂s_T, and ∂L/∂s_T is 0 for a part of the state,
    such as c, that is not h.

    The layer is taken as at inference, without dropout. It costs time²/2 singular value decompositions a sample: for
    100 steps of 64 units half a second, for an LSTM, whose state is twice as large, four.

    Args:
        layer: built; `kseq.layers.SimpleRNN`, `GRU`, `LSTM`, or any `keras.layers.RNN` with a cell that returns its
            output as one of its states. With `go_backwards=True` step 0 is the one read first, the last of the inputs.
        inputs: `(batch, time, features)`.
        initial_state: of the layer, an array `(batch, units)` or a list with one for each state. Zeros by default; the
            kept state if the layer is stateful, which is not changed.
        mask: booleans `(batch, time)`; a step whose mask is false keeps the state.
        loss: L as a function of the last h, `(batch, units)`, in `keras.ops`; one value, or one a sample, whose sum is
            taken. By default the sum of h_T, whose gradient by h_T is the same in every network.

    Returns:
        A `GradientFlow`. Its bound exists for a vanilla network whose activation is linear, ReLU, tanh, softsign,
        sigmoid or hard sigmoid; otherwise its note says why not.

    Raises:
        InputError: if the layer is not recurrent or not built, the shapes do not fit it, or its states overflow.

    Source: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
    section 2.1, equations 5–7; Y. Bengio, P. Simard, P. Frasconi, "Learning long-term dependencies with gradient
    descent is difficult", IEEE Transactions on Neural Networks 1994.
    """
    steps = step_jacobians(layer, inputs, initial_state, mask=mask)
    norms, hidden_norms = _norms_of_products(steps)
    beta_w, beta_h, note = _betas(layer)
    bound = None
    if not note:
        taken = steps.taken.cumsum(axis=1)
        exponents = taken[:, :, None] - taken[:, None, :]  # (batch, t, k)
        with np.errstate(over="ignore"):
            bound = np.where(np.isnan(norms), np.nan, (beta_w * beta_h) ** np.maximum(exponents, 0.0))
    return GradientFlow(
        norms=norms,
        hidden_norms=hidden_norms,
        bound=bound,
        beta_w=beta_w,
        beta_h=beta_h,
        note=note,
        loss_gradients=_norms_of_loss_gradients(steps, loss or ops.sum),
    )


def step_jacobians(layer: keras.layers.Layer, inputs, initial_state=None, *, mask=None) -> Steps:
    """The states of a recurrent layer and J_t = ∂s_t/∂s_{t−1} at each step; the arguments of `gradient_flow`."""
    inputs, parts, mask = _checked(layer, inputs, initial_state, mask)
    cell, structure = layer.cell, layer.get_initial_state(1)
    if layer.go_backwards:
        inputs, mask = inputs[:, ::-1], mask[:, ::-1]
    batch, time, features = inputs.shape
    ends = np.cumsum([part.shape[1] for part in parts])
    size = int(ends[-1])

    def step(x, state) -> tuple:
        """(rows, features), (rows, state) → the output and the next state, (rows, units) and (rows, state)."""
        pieces = [state[:, end - part.shape[1] : end] for end, part in zip(ends, parts, strict=True)]
        output, following = cell(x, keras.tree.pack_sequence_as(structure, pieces))
        return output, ops.concatenate(keras.tree.flatten(following), axis=-1)

    # Forwards, step by step
    states = [np.concatenate(parts, axis=1)]
    outputs = []
    for t in range(time):
        output, state = map(_to_numpy, step(_to_tensor(layer, inputs[:, t]), _to_tensor(layer, states[-1])))
        states.append(np.where(mask[:, t, None], state, states[-1]))
        outputs.append(output)
        if not np.isfinite(states[-1]).all():
            raise InputError(
                f"layer {layer.name}: its states leave {layer.compute_dtype} at step {t}; "
                "give smaller inputs or weights, or fewer steps"
            )
    states = np.stack(states, axis=1)

    # The states known, no step depends on another: they are differentiated together, one row a sample and step
    x = _to_tensor(layer, inputs.reshape(batch * time, features))
    before = _to_tensor(layer, states[:, :-1].reshape(batch * time, size))
    jacobians = row_jacobians(lambda rows: step(x, rows)[1], before).reshape(batch, time, size, size)
    jacobians = np.where(mask[..., None, None], jacobians, np.eye(size))
    for part in (cell, *getattr(cell, "cells", ())):
        if hasattr(part, "reset_dropout_mask"):  # Keras keeps masks that fit our batch alone
            part.reset_dropout_mask()
            part.reset_recurrent_dropout_mask()
    hidden = _hidden(layer, np.stack(outputs, axis=1), states[:, 1:], ends, mask)
    return Steps(states=states, jacobians=jacobians, hidden=hidden, taken=mask)


def _norms_of_products(steps: Steps) -> tuple[np.ndarray, np.ndarray]:
    """‖∂s_t/∂s_k‖₂ and ‖∂h_t/∂h_k‖₂ for all k ≤ t, NaN elsewhere: twice `(batch, t, k)`."""
    batch, time, size, _ = steps.jacobians.shape
    h = steps.hidden
    norms, hidden_norms = np.full((2, batch, time, time), np.nan)
    products = np.empty((batch, time, size, size))  # ∂s_t/∂s_k for all k, at the t that the loop has reached
    for t in range(time):
        with np.errstate(over="ignore", invalid="ignore"):  # infinite from here on
            products[:, :t] = steps.jacobians[:, t, None] @ products[:, :t]
        products[:, t] = np.eye(size)
        until_now = products[:, : t + 1]
        norms[:, t, : t + 1] = _spectral_norms(until_now)
        hidden_norms[:, t, : t + 1] = norms[:, t, : t + 1]
        if h != slice(0, size):
            hidden_norms[:, t, : t + 1] = _spectral_norms(until_now[..., h, h])
    return norms, hidden_norms


def _spectral_norms(matrices: np.ndarray) -> np.ndarray:
    finite = np.isfinite(matrices).all(axis=(-2, -1))
    norms = np.full(finite.shape, np.inf)
    norms[finite] = np.linalg.svd(matrices[finite], compute_uv=False)[:, 0]
    return norms


def _norms_of_loss_gradients(steps: Steps, loss: Callable) -> np.ndarray:
    """‖∂L/∂s_t‖₂ for all t, `(batch, time)`, by g_{t−1} = J_tᵀ g_t from the last step backwards."""
    states = steps.states[:, -1]
    g = np.zeros(states.shape)
    g[:, steps.hidden] = gradient(loss, np.ascontiguousarray(states[:, steps.hidden]))
    gradients = [g]
    for t in reversed(range(1, steps.jacobians.shape[1])):
        with np.errstate(over="ignore", invalid="ignore"):
            g = np.einsum("bij,bi->bj", steps.jacobians[:, t], g)
        gradients.append(g)
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(np.stack(gradients[::-1], axis=1), axis=-1)
    return np.where(np.isnan(norms), np.inf, norms)


def _betas(layer: keras.layers.Layer) -> tuple[float | None, float | None, str]:
    """β_w, β_h and, if either is missing, why there is no bound."""
    cell = layer.cell
    if not isinstance(cell, keras.layers.SimpleRNNCell):
        return None, None, f"the bound is that of h = f(U x + W h + b), not of a {type(cell).__name__}"
    W = _to_numpy(cell.recurrent_kernel).astype("float64")
    beta_w, beta_h = float(np.linalg.norm(W, ord=2)), _SLOPES.get(cell.activation)
    if beta_h is None:
        name = getattr(cell.activation, "__name__", cell.activation)
        return beta_w, None, f"no bound on the slope of the activation {name} is known"
    return beta_w, beta_h, ""


def _hidden(layer: keras.layers.Layer, outputs, states, ends, mask) -> slice:
    """The part of the state that the cell returns as its output."""
    starts = [0, *ends[:-1]]
    for start, end in zip(starts, ends, strict=True):
        if end - start == outputs.shape[-1] and np.array_equal(outputs[mask], states[..., start:end][mask]):
            return slice(int(start), int(end))
    raise InputError(
        f"layer {layer.name}: the output of its {type(layer.cell).__name__} is none of its states; "
        "give a layer whose cell returns its state h"
    )


def _checked(layer, inputs, initial_state, mask) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """The inputs, the initial states and the mask as NumPy arrays that fit the layer."""
    if not isinstance(layer, keras.layers.RNN):
        raise InputError(
            f"layer {getattr(layer, 'name', None) or shorten(layer)}: a {type(layer).__name__}; "
            "give a keras.layers.RNN, such as kseq.layers.LSTM, or one direction of a Bidirectional (forward_layer)"
        )
    if not layer.built:
        raise InputError(f"layer {layer.name}: not built; call it on data first")
    inputs = _to_numpy(inputs)
    kernel = getattr(layer.cell, "kernel", None)
    features = kernel.shape[0] if kernel is not None and len(kernel.shape) == 2 else None
    if inputs.ndim != 3 or 0 in inputs.shape or (features and inputs.shape[-1] != features):
        raise InputError(
            f"inputs of shape {inputs.shape}: give (batch, time, {features or 'features'}), none of them 0"
        )
    batch, time, _ = inputs.shape
    mask = np.ones((batch, time), dtype=bool) if mask is None else _to_numpy(mask).astype(bool)
    if mask.shape != (batch, time):
        raise InputError(f"mask of shape {mask.shape}: give (batch, time), here {(batch, time)}")
    if not np.isfinite(inputs[mask]).all():
        raise InputError("inputs: NaN or infinite at a step that is not masked; give finite numbers, or mask the step")
    inputs = np.where(mask[..., None], inputs, 0)  # what a masked step holds must not matter

    zeros = keras.tree.flatten(layer.get_initial_state(batch))
    if initial_state is None:
        initial_state = layer.states if layer.stateful else zeros
    parts = [_to_numpy(part) for part in keras.tree.flatten(initial_state)]
    shapes, allowed = [part.shape for part in parts], [tuple(part.shape) for part in zeros]
    if shapes != allowed:
        raise InputError(
            f"initial_state of shape {', '.join(map(str, shapes))}: give {', '.join(map(str, allowed))}, "
            "(batch, units) for each state of the layer"
        )
    return inputs, parts, mask


def _to_tensor(layer: keras.layers.Layer, array: np.ndarray):
    return ops.convert_to_tensor(array, dtype=layer.compute_dtype)


def _to_numpy(value) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else ops.convert_to_numpy(value)

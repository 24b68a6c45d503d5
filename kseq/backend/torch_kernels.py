"""The recurrent kernels of PyTorch (oneDNN, cuDNN) with the weights of Keras and with masks."""

import torch
from keras import activations

from kseq.backend.recurrence import GRUEquations, LSTMEquations, SimpleRNNEquations

KERNELS = {  # PyTorch's for these equations; for others it has none
    SimpleRNNEquations(activations.tanh): torch._VF.rnn_tanh,
    SimpleRNNEquations(activations.relu): torch._VF.rnn_relu,
    LSTMEquations(activations.tanh, activations.sigmoid): torch._VF.lstm,
    GRUEquations(activations.tanh, activations.sigmoid, reset_after=True): torch._VF.gru,
}
CLOSED = 1e4  # a pre-activation at which a sigmoid is exactly 1, and at its negative exactly 0, in every precision


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
    """As `kseq.backend.recurrence.recurrence`, for the equations in `KERNELS`.

    The kernels know no masks. The valid steps of a row are moved to its front, where what comes behind them cannot
    change them; the outputs are moved back. What comes behind leaves the cell state of an LSTM as it is, for an input
    that is 1 there closes the input gate and opens the forget gate.
    """
    if mask is not None:
        padding = ~mask
        keeps_cell = isinstance(equations, LSTMEquations) and cell_state
        if torch.is_grad_enabled() or keeps_cell:
            x = _replace(x, padding)  # NaN would reach gradients of weights, as 0 · NaN, and the cell state
        x, mask, place = _to_the_front(x, mask)
        if keeps_cell:
            x = torch.cat([x, (~mask)[..., None].to(x.dtype)], dim=-1)
            units = recurrent_kernel.shape[0]
            gates = x.new_zeros(1, 4 * units)
            gates[:, :units], gates[:, units : 2 * units] = -CLOSED, CLOSED
            kernel = torch.cat([kernel, gates])
    recurrent_bias = torch.zeros_like(bias) if recurrent_bias is None else recurrent_bias
    weights = [kernel.t(), recurrent_kernel.t(), bias, recurrent_bias]
    if isinstance(equations, GRUEquations):
        weights = [torch.cat([r, z, n]) for z, r, n in (weight.chunk(3) for weight in weights)]
    weights = [weight.contiguous() for weight in weights]
    first = tuple(state[None].contiguous() for state in states)
    state = first if isinstance(equations, LSTMEquations) else first[0]
    # layers 1, dropout 0, bidirectional False, batch first True
    h, *last = KERNELS[equations](x, state, weights, True, 1, 0.0, torch.is_grad_enabled(), False, True)
    last = [state[0] for state in last]
    if mask is None:
        return h, last

    count = mask.sum(dim=1)
    behind = (count - 1).clamp(min=0)[:, None, None].expand(-1, 1, h.shape[-1])
    last[0] = torch.where(count[:, None] > 0, h.gather(1, behind)[:, 0], states[0])
    if place is not None:
        h = _take(h, place.clamp(min=0))
    if masked == "zero":
        h = _replace(h, padding)
    elif masked == "hold":
        h = _replace(h, padding, last[0]) if place is None else _replace(h, place < 0, states[0])
    return h, last


def _replace(x, steps, values=None):
    """`values` (batch, size) of a row, or 0, in the place of x (batch, time, size) at the steps (batch, time)."""
    if torch.compiler.is_compiling():
        return torch.where(steps[..., None], 0 if values is None else values[:, None], x)
    batch, time, size = x.shape
    rows = steps.flatten().nonzero()[:, 0]
    x = x.reshape(batch * time, size)  # whole rows of a matrix: 3 times as fast as `where`
    if values is None:
        return x.index_fill(0, rows, 0).reshape(batch, time, size)
    return x.index_copy(0, rows, values.index_select(0, rows // time)).reshape(batch, time, size)


def _to_the_front(x, mask):
    """Move valid steps to the front: x, its mask, and for every step the new place of the last valid one up to it.

    The place is −1 before the first valid step. All are `None` if they are in place already: padding on the right.
    """
    if not torch.compiler.is_compiling() and not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return x, mask, None
    order = torch.argsort((~mask).to(torch.uint8), dim=1, stable=True)
    return _take(x, order), mask.gather(1, order), torch.cumsum(mask, dim=1) - 1


def _take(x, steps):
    """x[b, steps[b, t]] for all b and t: by rows of a matrix, whose gradient is faster than that of `gather`."""
    batch, time = steps.shape
    rows = steps + torch.arange(batch, device=steps.device)[:, None] * time
    return x.reshape(batch * time, -1).index_select(0, rows.flatten()).reshape(batch, time, -1)

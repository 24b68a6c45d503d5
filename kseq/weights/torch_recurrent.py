"""`torch.nn.RNN`, `torch.nn.LSTM` and `torch.nn.GRU`, of any depth, in one direction or two.

For level k, PyTorch has (`_reverse` after the names of the backward direction, G gates, H units):

    weight_ih_l{k} (G·H, input)    weight_hh_l{k} (G·H, H)    bias_ih_l{k} (G·H,)    bias_hh_l{k} (G·H,)

Keras has the transposed kernels. `SimpleRNN` and `LSTM` have one bias, the sum of both; the gates of the LSTM stand in
the order i, f, g, o in both. The GRU keeps two biases, because b_hn is multiplied by the reset gate,

    n = tanh(W_in x + b_in + r ∘ (W_hn h + b_hn)),

and its gates r, z, n stand in the order z, r, n in Keras. Source: torch/nn/modules/rnn.py; keras/src/layers/rnn.
"""

import re

import keras
import numpy as np

from kseq.errors import InputError
from kseq.weights.layout import Layout, Rule

NAME = re.compile(r"(?P<prefix>(.*\.)?)(weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(?P<level>\d+)(_reverse)?")
CELLS = {keras.layers.SimpleRNNCell: 1, keras.layers.LSTMCell: 4, keras.layers.GRUCell: 3}  # and their gates
KNOWN = {"kernel", "recurrent_kernel", "bias"}


class TorchRecurrent(Layout):
    """The recurrent layers of PyTorch; their levels 0, 1, … go into the recurrent layers of a model in its order.

    A level of two directions goes into a `keras.layers.Bidirectional`. The tensors may share a prefix (`rnn.`). The
    nonlinearity of an RNN is not in a checkpoint: give the layer the right `activation`. PyTorch multiplies by the
    reset gate after the recurrent product, so a GRU needs `reset_after=True`, the default of Keras.
    """

    name = "torch_recurrent"

    def recognises(self, names: set[str]) -> bool:
        return any(NAME.fullmatch(name) for name in names)

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        prefix = _prefix(tensors)
        layers = _recurrent_layers(model)
        if not layers:
            raise InputError(f"{model.name}: has no SimpleRNN, LSTM or GRU layer for recurrent weights")
        rules = []
        for level, layer in enumerate(layers):
            rules += recurrent_rules(layer, prefix, level)
        return rules

    def build_shapes(
        self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]
    ) -> tuple[tuple[int | None, ...], ...]:
        first = model.layers[0] if isinstance(model, keras.Sequential) and model.layers else model
        kernel = tensors.get(f"{_prefix(tensors)}weight_ih_l0")
        if not _is_recurrent(first) or first.stateful or kernel is None or kernel.ndim != 2:
            return super().build_shapes(model, tensors)
        return ((None, None, kernel.shape[1]),)  # (batch, time, input)


def recurrent_rules(layer: keras.layers.Layer, prefix: str, level: int = 0) -> list[Rule]:
    """Rules for a recurrent layer, or one of two directions, from level `level` of the module named `prefix`."""
    if isinstance(layer, keras.layers.Bidirectional):
        forward = _cell_rules(layer.forward_layer, prefix, f"_l{level}")
        return forward + _cell_rules(layer.backward_layer, prefix, f"_l{level}_reverse")
    return _cell_rules(layer, prefix, f"_l{level}")


def _prefix(tensors: dict[str, np.ndarray]) -> str:
    matches = [match for name in tensors if (match := NAME.fullmatch(name))]
    prefixes = sorted({match["prefix"] for match in matches})
    if len(prefixes) > 1:
        raise InputError(
            f"checkpoint: holds {len(prefixes)} recurrent modules ({', '.join(map(repr, prefixes))}); "
            "give a dict with the tensors of one"
        )
    if any("weight_hr_l" in match.string for match in matches):
        raise InputError("checkpoint: an LSTM with proj_size has no counterpart in Keras; train one without it")
    return prefixes[0] if prefixes else ""


def _is_recurrent(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.Bidirectional):
        layer = layer.forward_layer
    return isinstance(layer, keras.layers.RNN)


def _recurrent_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    if _is_recurrent(layer):
        return [layer]
    return [found for inner in getattr(layer, "layers", []) for found in _recurrent_layers(inner)]


def _cell_rules(layer: keras.layers.RNN, prefix: str, suffix: str) -> list[Rule]:
    cell = layer.cell
    gates = next((number for kind, number in CELLS.items() if isinstance(cell, kind)), None)
    own = {variable.name for variable in getattr(cell, "weights", [])} - KNOWN
    if gates is None or own:
        what = f"its weights {', '.join(sorted(own))}" if own and gates else f"a {type(cell).__name__}"
        raise InputError(f"{layer.name}: {what} has no counterpart in torch.nn; use SimpleRNN, LSTM or GRU")
    is_gru = isinstance(cell, keras.layers.GRUCell)
    if is_gru and not cell.reset_after:
        raise InputError(
            f"{layer.name}: reset_after=False cannot take weights of PyTorch, whose reset gate multiplies the "
            "recurrent product and not the state; make the layer with reset_after=True"
        )
    rows, units, inputs = gates * cell.units, cell.units, cell.kernel.shape[0]
    in_keras_order = _z_before_r if is_gru else _as_it_is

    def kernel(weight: np.ndarray) -> np.ndarray:
        return in_keras_order(weight).T

    def bias(bias_ih: np.ndarray, bias_hh: np.ndarray) -> np.ndarray:
        return np.stack([in_keras_order(bias_ih), in_keras_order(bias_hh)]) if is_gru else bias_ih + bias_hh

    rules = [
        Rule(cell.kernel, {f"{prefix}weight_ih{suffix}": (rows, inputs)}, kernel),
        Rule(cell.recurrent_kernel, {f"{prefix}weight_hh{suffix}": (rows, units)}, kernel),
    ]
    if cell.use_bias:
        sources = {f"{prefix}bias_ih{suffix}": (rows,), f"{prefix}bias_hh{suffix}": (rows,)}
        rules.append(Rule(cell.bias, sources, bias))
    return rules


def _as_it_is(rows: np.ndarray) -> np.ndarray:
    return rows


def _z_before_r(rows: np.ndarray) -> np.ndarray:
    r, z, n = np.split(rows, 3)
    return np.concatenate([z, r, n])

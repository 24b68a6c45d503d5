"""The convolutional LSTM of Hzzone/Precipitation-Nowcasting, a PyTorch port of HKO-7.

    _conv.weight (4 filters, channels + filters, k, k)    of [X; H]: W_x and W_h, the gates in the order i, f, c, o
    _conv.bias (4 filters,)                               b
    Wci, Wcf, Wco (1, filters, height, width)             the peepholes

In the original class the peepholes begin with zeros and are moved to the device after `nn.Parameter` has wrapped them.
On a GPU that leaves plain tensors, which are never trained and not in its `state_dict()`; on the CPU they are
parameters. A checkpoint without them goes into a layer with `peepholes=False`, which computes the same.

Source: nowcasting/models/convLSTM.py of that repository. Its maps are time first and channels first; here they are
`(batch, time, height, width, channels)`.
"""

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers.autonomous_conv_lstm import AutonomousConvLSTM
from kseq.layers.conv_lstm import ConvLSTM
from kseq.weights.layout import Layout, Rule

PEEPHOLES = ("Wci", "Wcf", "Wco")


class ConvLstmHzzone(Layout):
    """`ConvLSTM` with stride 1, an odd kernel and padding that keeps the size, into a `kseq.layers.ConvLSTM`."""

    name = "conv_lstm_hzzone"

    def recognises(self, names: set[str]) -> bool:
        return {"_conv.weight", "_conv.bias"} <= names <= {"_conv.weight", "_conv.bias", *PEEPHOLES}

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        if not isinstance(model, ConvLSTM) or isinstance(model, AutonomousConvLSTM):
            raise InputError(f"{model.name}: no kseq.layers.ConvLSTM, to which {self.name} checkpoints belong")
        *size, channels, gates = model.kernel.shape
        filters = gates // 4
        self._check(model, size)
        weight = {"_conv.weight": (gates, channels + filters, *size)}
        rules = [
            Rule(model.kernel, weight, lambda w: np.moveaxis(w[:, :channels], (0, 1), (-1, -2))),
            Rule(model.recurrent_kernel, weight, lambda w: np.moveaxis(w[:, channels:], (0, 1), (-1, -2))),
            Rule(model.bias, {"_conv.bias": (gates,)}, np.asarray),
        ]
        for variable, name in zip(model.peephole_weights or [], PEEPHOLES, strict=False):
            *space, _ = variable.shape
            rules.append(Rule(variable, {name: (1, filters, *space)}, lambda w: np.moveaxis(w[0], 0, -1)))
        return rules

    def build_shapes(
        self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]
    ) -> tuple[tuple[int | None, ...], ...]:
        if isinstance(model, ConvLSTM) and {"Wci", "_conv.weight"} <= set(tensors):
            _, filters, *space = tensors["Wci"].shape
            return ((None, None, *space, tensors["_conv.weight"].shape[1] - filters),)
        return super().build_shapes(model, tensors)

    @staticmethod
    def _check(model: ConvLSTM, size: list[int]) -> None:
        """Whether the layer convolves as the original does."""
        wanted = {
            "kernel_size": ([k % 2 for k in size], [1] * len(size)),
            "recurrent_kernel_size": (tuple(model.recurrent_kernel.shape[:-2]), tuple(size)),
            "strides": (np.max(model.strides), 1),
            "padding": (model.padding, "same"),
            "use_bias": (model.use_bias, True),
            "peepholes": (model.peepholes in (True, False), True),
        }
        for argument, (ours, theirs) in wanted.items():
            if ours != theirs:
                raise InputError(
                    f"{model.name}: {argument} {getattr(model, argument)!r}, which conv_lstm_hzzone checkpoints do not "
                    "have; build it with both kernels of the same odd sizes, strides 1, padding 'same', a bias, and "
                    "peepholes True, or False for a checkpoint without them"
                )

"""The non-local blocks of AlexHex7/Non-local_pytorch.

    theta, phi, g (channels, inputs, 1, …)    W_θ, W_φ, W_g; with pooling phi.0 and g.0
    concat_project.0 (1, 2 channels, 1, 1)    w_f of [θ; φ]
    W.0 (inputs, channels, 1, …)              W_z and a bias
    W.1                                       BN

Source: lib/non_local_….py of that repository; its softmax is that of `NonLocalBlock(scale=False)`. With a softmax the
bias of phi has no effect, that of g adds W_z b to the output, and so both it and that of W.0 go into the running mean.
"""

from collections.abc import Collection

import keras
import numpy as np

from kseq.errors import InputError
from kseq.layers import NonLocalBlock
from kseq.weights.layout import Layout, Rule
from kseq.weights.torch_convolutions import batch_norm_rules, pointwise_rules


class NonLocal(Layout):
    """`NONLocalBlock1D` to `3D` with `bn_layer=True` into a built `kseq.layers.NonLocalBlock`."""

    name = "non_local"

    def recognises(self, names: set[str]) -> bool:
        return {"W.0.weight", "W.1.running_mean"} <= names and not {"g.weight", "g.0.weight"}.isdisjoint(names)

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        if not isinstance(model, NonLocalBlock):
            raise InputError(f"{model.name}: no kseq.layers.NonLocalBlock, to which {self.name} checkpoints belong")
        if "gaussian" in model.mode and model.scale:
            raise InputError(f"{model.name}: scale True, where this checkpoint has none; build it with scale=False")
        rank = tensors["W.0.weight"].ndim - 2 if "W.0.weight" in tensors else 2
        pooled = ".0" if model.pooling is not None else ""
        rules = pointwise_rules(model.g, f"g{pooled}", rank)
        if model.theta is not None:
            rules += pointwise_rules(model.theta, "theta", rank) + pointwise_rules(model.phi, f"phi{pooled}", rank)
        if model.f_theta is not None:
            channels = model.f_theta.kernel.shape[0]
            source = {"concat_project.0.weight": (1, 2 * channels, 1, 1)}
            rules.append(Rule(model.f_theta.kernel, source, lambda w: w.reshape(-1, 1)[:channels]))
            rules.append(Rule(model.f_phi.kernel, source, lambda w: w.reshape(-1, 1)[channels:]))
        rules += pointwise_rules(model.output_projection, "W.0", rank)
        *others, mean, variance = batch_norm_rules(model.norm, "W.1", "W.0")
        if not model.g.use_bias:
            channels, inputs = model.output_projection.kernel.shape
            more = {"W.0.weight": (inputs, channels, *(1,) * rank), f"g{pooled}.bias": (channels,)}
            mean = Rule(
                mean.variable, mean.sources | more, lambda mean, bias, W, g: mean - bias - W.reshape(len(W), -1) @ g
            )
        return [*rules, *others, mean, variance]

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        return name.endswith("num_batches_tracked") or name in ("phi.bias", "phi.0.bias")

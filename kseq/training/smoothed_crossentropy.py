"""The loss of MS-TCN: cross-entropy of every frame, and a cost of answers that jump from one frame to the next."""

import keras
from keras import ops

from kseq.backend.crossentropy import crossentropy
from kseq.errors import InputError


@keras.saving.register_keras_serializable(package="kseq")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross-entropy plus λ times the truncated mean squared error between log-probabilities of neighbouring frames,

        loss = Σ_t w_t (−log p_(t, y)) / Σ_t w_t + λ Σ_t v_t (1/C) Σ_c min(Δ_tc², τ²) / Σ_t v_t,
        Δ_tc = log p_tc − log p_(t−1)c,

    with p = softmax(logits), C classes, the weights w of frames, 0 where the label is ignored, and v_t = w_t where the
    frame before counts too, else 0. The gradient takes log p_(t−1)c for a constant: a frame learns to resemble the one
    before. A jump by more than τ costs τ² and has no gradient. Sums go over all frames of the batch; without any the
    loss is 0. Computed in float32 under mixed precision. It smooths answers in time, not labels. A mask that the logits
    carry is not used: padding needs the ignored label or a weight of 0.

    For a network of stages, `model.compile(optimizer, **deep_supervision(SmoothedCrossentropy(), model,
    auxiliary_weight=1.0))` sums it over all of them, as MS-TCN does.

    Source: Farha & Gall, "MS-TCN", CVPR 2019 (arXiv 1903.01945), section 3.3. As in the code of the authors
    (yabufarha/ms-tcn, `model.py`) the mean is over pairs of frames, of which there is one less than T; there padded
    frames count in the divisor, here they do not.

    Call arguments:
        targets: classes `(batch, time)`, 0 to C − 1, or the ignored label.
        logits: `(batch, time, classes)`.
        sample_weight: w, `(batch,)`, `(batch, 1)` or `(batch, time)`, or `None` for 1.

    Returns:
        A scalar.

    Args:
        smoothing: λ; 0 is cross-entropy.
        threshold: τ.
        ignore_label: of frames that count nowhere, as padding; `None` if there are none, or weights are 0 there.
        name: of the loss.

    Raises:
        InputError: if λ is negative or τ not above 0; in the call, for logits, targets or weights of another rank.
    """

    def __init__(
        self,
        smoothing: float = 0.15,
        threshold: float = 4.0,
        *,
        ignore_label: int | None = None,
        name: str = "smoothed_crossentropy",
    ):
        super().__init__(name=name, dtype="float32")
        if not smoothing >= 0:
            raise InputError(f"smoothing {smoothing!r}: give 0 or more")
        if not threshold > 0:
            raise InputError(f"threshold {threshold!r}: give a number above 0")
        self.smoothing, self.threshold, self.ignore_label = smoothing, threshold, ignore_label

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Not `call`: what Keras does around it is the mean over all frames, with the mask of the logits.
        ranks = {"logits": (y_pred, (3,)), "targets": (y_true, (2,)), "sample_weight": (sample_weight, (1, 2))}
        for argument, (tensor, allowed) in ranks.items():
            if tensor is not None and len(tensor.shape) not in allowed:
                raise InputError(
                    f"{argument} of shape {tuple(tensor.shape)}: give logits (batch, time, classes), targets (batch, "
                    "time), weights (batch, time) or (batch,)"
                )
        targets, logits = ops.cast(y_true, "int32"), ops.cast(y_pred, "float32")
        weight = ops.ones_like(targets, dtype="float32")  # (batch, time)
        if self.ignore_label is not None:
            valid = ops.not_equal(targets, self.ignore_label)
            weight, targets = ops.cast(valid, "float32"), ops.where(valid, targets, 0)
        if sample_weight is not None:
            given = ops.cast(sample_weight, "float32")
            weight = weight * (given[:, None] if len(given.shape) == 1 else given)
        loss = ops.divide_no_nan(ops.sum(weight * crossentropy(targets, logits)), ops.sum(weight))
        if not self.smoothing:
            return loss
        log_p = ops.log_softmax(logits, axis=-1)
        jumps = ops.square(log_p[:, 1:] - ops.stop_gradient(log_p[:, :-1]))
        jumps = ops.mean(ops.minimum(jumps, self.threshold**2), axis=-1)  # (batch, time − 1)
        pairs = weight[:, 1:] * ops.cast(weight[:, :-1] > 0, "float32")
        return loss + self.smoothing * ops.divide_no_nan(ops.sum(pairs * jumps), ops.sum(pairs))

    def get_config(self):
        return {
            "smoothing": self.smoothing,
            "threshold": self.threshold,
            "ignore_label": self.ignore_label,
            "name": self.name,
        }

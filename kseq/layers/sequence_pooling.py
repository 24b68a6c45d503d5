"""One vector for a sequence of vectors."""

from typing import Literal

import keras
from keras import ops

from kseq.errors import InputError
from kseq.layers.dense import Dense
from kseq.layers.initializers import clone

MODES = ("last", "mean", "max", "attention", "concat")


@keras.saving.register_keras_serializable(package="kseq")
class SequencePooling(keras.layers.Layer):
    """One vector for a sequence h_1 … h_T of states, over the valid steps alone.

    - "last": h_T, the state at the last valid step.
    - "mean": (1/T) Σ_t h_t.
    - "max": the largest value of each feature.
    - "attention": Σ_t α_t h_t with u_t = tanh(h_t W + b) and α = softmax(u_1 · u_w, …, u_T · u_w), the vector u_w
      learned (Yang et al., "Hierarchical attention networks", NAACL 2016, equations 5–7).
    - "concat": [h_T; max_t h_t; mean_t h_t] (Howard & Ruder, "ULMFiT", ACL 2018, arXiv 1801.06146, section 3.3).

    Keras's pooling is not used: `GlobalAveragePooling1D` divides by 0 in a row without valid step, and
    `GlobalMaxPooling1D` does not look at the mask.

    Args:
        mode: one of the above.
        attention_dim: size of u_t; `None` is that of h_t.
        bidirectional: whether the second half of the features reads the sequence backwards, as in
            `keras.layers.Bidirectional`: then its last state is at the first valid step.
        kernel_initializer: of W and u_w.

    Input shape: `(batch, time, dim)`.

    Output shape: `(batch, dim)`, for "concat" `(batch, 3 dim)`; with `return_attention_scores` also the weights α
    `(batch, time)`, float32.

    Call arguments:
        inputs: h.
        return_attention_scores: whether to return `(outputs, weights)`, with "attention" only.

    Masking: what stands at a masked step, NaN included, reaches no output, and there α is 0. A row without any valid
    step gives zeros. The output has no mask.

    Raises:
        InputError: for an unknown mode, an `attention_dim` below 1, an odd number of features with `bidirectional`, or
            weights asked of another mode than "attention".
    """

    def __init__(
        self,
        mode: Literal["last", "mean", "max", "attention", "concat"] = "attention",
        *,
        attention_dim: int | None = None,
        bidirectional: bool = False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if mode not in MODES:
            raise InputError(f"mode {mode!r}: choose one of {', '.join(MODES)}")
        if attention_dim is not None and attention_dim < 1:
            raise InputError(f"attention_dim {attention_dim!r}: give 1 or more, or None for the size of the input")
        self.mode, self.attention_dim, self.bidirectional = mode, attention_dim, bidirectional
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.supports_masking = True

    def build(self, input_shape):
        dim = input_shape[-1]
        if self.bidirectional and dim % 2:
            raise InputError(f"bidirectional True: {dim} features have no two halves; give an even number")
        if self.mode == "attention":
            size = self.attention_dim or dim
            initializer = clone(self.kernel_initializer)
            self.hidden = Dense(
                size, "tanh", kernel_initializer=initializer, dtype=self.dtype_policy, name="hidden"
            )  # W, b
            self.hidden.build((None, dim))
            self.context = self.add_weight(
                shape=(size, 1), initializer=clone(self.kernel_initializer), name="context"
            )  # u_w
        self.built = True

    def call(self, inputs, mask=None, return_attention_scores=False):
        self._check(return_attention_scores)
        valid = ops.ones_like(inputs[..., :1], "bool") if mask is None else ops.cast(mask, "bool")[..., None]
        h = inputs if mask is None else ops.where(valid, inputs, 0)  # valid: (batch, time, 1)
        if self.mode == "attention":
            outputs, weights = self._attend(h, valid)
            return (outputs, weights) if return_attention_scores else outputs
        if self.mode == "concat":
            return ops.concatenate([self._last(h, valid), self._max(h, valid), self._mean(h, valid)], axis=-1)
        return {"last": self._last, "max": self._max, "mean": self._mean}[self.mode](h, valid)

    def _last(self, h, valid):
        steps = ops.arange(ops.shape(h)[1])[:, None]
        last = ops.max(ops.where(valid, steps, -1), axis=1, keepdims=True)  # (batch, 1, 1); -1 if there is none
        if not self.bidirectional:
            return ops.sum(ops.where(steps == last, h, 0), axis=1)
        first = ops.min(ops.where(valid, steps, ops.shape(h)[1]), axis=1, keepdims=True)
        forward, backward = ops.split(h, 2, axis=-1)
        ends = [ops.where(steps == last, forward, 0), ops.where(steps == first, backward, 0)]
        return ops.sum(ops.concatenate(ends, axis=-1), axis=1)

    def _max(self, h, valid):
        largest = ops.max(ops.where(valid, h, float("-inf")), axis=1)
        return ops.where(ops.any(valid, axis=1), largest, 0)

    def _mean(self, h, valid):
        count = ops.sum(ops.cast(valid, "float32"), axis=1)
        total = ops.sum(ops.cast(h, "float32"), axis=1)  # of a long sequence in half precision it would overflow
        return ops.cast(total / ops.maximum(count, 1), h.dtype)

    def _attend(self, h, valid):
        logits = ops.matmul(self.hidden(h), ops.cast(self.context, h.dtype))  # (batch, time, 1)
        logits = ops.where(valid, ops.cast(logits, "float32"), -1e30)
        weights = ops.where(valid, ops.softmax(logits, axis=1), 0)
        return ops.sum(ops.cast(weights, h.dtype) * h, axis=1), weights[..., 0]

    def _check(self, return_attention_scores):
        if return_attention_scores and self.mode != "attention":
            raise InputError(f"return_attention_scores True: mode {self.mode!r} has no weights; take 'attention'")

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        batch, _, dim = input_shape
        return batch, 3 * dim if self.mode == "concat" else dim

    def compute_output_spec(self, inputs, mask=None, return_attention_scores=False):
        self._check(return_attention_scores)
        outputs = keras.KerasTensor(self.compute_output_shape(inputs.shape), dtype=self.compute_dtype)
        return (outputs, keras.KerasTensor(inputs.shape[:2], "float32")) if return_attention_scores else outputs

    def get_config(self):
        return super().get_config() | {
            "mode": self.mode,
            "attention_dim": self.attention_dim,
            "bidirectional": self.bidirectional,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }

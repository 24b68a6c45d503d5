"""Labels, weights and log-probabilities of all pixels of a batch, and the means and overlaps of losses."""

import numpy as np
from keras import ops

from kseq.errors import InputError


def resize_labels(labels, space: tuple[int, ...]):
    """The labels `(batch, *finer)` at the resolution `space`: of each block of pixels the one in its middle.

    Raises:
        InputError: if the ranks differ or a size does not divide.
    """
    sizes = tuple(labels.shape[1:])
    if len(sizes) != len(space):
        raise InputError(
            f"labels of shape {tuple(labels.shape)} for logits of the space {space}: give whole numbers (batch, *space)"
        )
    strides = []
    for size, wanted in zip(sizes, space, strict=True):
        if size is not None and wanted is not None and (size < wanted or size % wanted):
            raise InputError(f"labels of the space {sizes} for logits of the space {space}: sizes must divide")
        strides.append(1 if size is None or wanted is None else size // wanted)
    if all(stride == 1 for stride in strides):
        return labels
    return labels[(slice(None), *(slice(stride // 2, None, stride) for stride in strides))]


class Pixels:
    """The weights and log p of all pixels of a batch, classes before pixels, and the sums over them."""

    def __init__(self, labels, logits, ignore_label, sample_weight):
        space, classes = tuple(logits.shape[1:-1]), logits.shape[-1]
        if classes < 2:
            raise InputError(f"logits of shape {tuple(logits.shape)}: give one for each class, the background's too")
        self.classes, size = classes, int(np.prod(space))
        labels = ops.reshape(resize_labels(ops.cast(labels, "int32"), space), (-1, 1, size))  # (batch, 1, pixels)
        logits = ops.reshape(ops.cast(logits, "float32"), (-1, size, classes))  # (batch, pixels, classes)
        self.log_p = ops.log_softmax(ops.transpose(logits, (0, 2, 1)), axis=1)  # (batch, classes, pixels)
        self.g = ops.cast(ops.equal(labels, np.arange(classes, dtype="int32")[:, None]), "float32")
        self.weight = ops.ones_like(labels, dtype="float32")  # (batch, 1, pixels)
        self.sample_weight = ops.ones_like(self.weight[:, 0, 0])  # (batch,)
        wrong = ops.logical_or(ops.less(labels, 0), ops.greater_equal(labels, classes))
        if ignore_label is not None:
            valid = ops.not_equal(labels, ignore_label)
            self.weight = ops.cast(valid, "float32")
            wrong = ops.logical_and(wrong, valid)
        self.any_wrong = ops.any(wrong)
        if sample_weight is not None:
            weight = ops.cast(sample_weight, "float32")
            if len(weight.shape) == len(space) + 1 and tuple(weight.shape[1:]) != (1,):
                self.weight = self.weight * ops.reshape(resize_labels(weight, space), (-1, 1, size))
            elif len(weight.shape) == 1 or tuple(weight.shape[1:]) == (1,):
                self.sample_weight = ops.reshape(weight, (-1,))
            else:
                raise InputError(
                    f"sample_weight of shape {tuple(weight.shape)} for logits of the space {space}: give (batch,) or "
                    "(batch, *space)"
                )

    def mean(self, values, class_weights=None, normalise_classes=True):
        """The mean of `values` `(batch, 1, pixels)` over all pixels, each with its weight times that of its class."""
        weight = self.weight * self.sample_weight[:, None, None]
        total = ops.sum(weight)
        if class_weights is not None:
            weight = weight * ops.sum(self.g * np.array(class_weights, "float32")[:, None], axis=1, keepdims=True)
            total = ops.sum(weight) if normalise_classes else total
        return self.checked(ops.divide_no_nan(ops.sum(weight * values), total))

    def crossentropy(self, class_weights=None):
        """The mean of -log p_y."""
        return self.mean(-ops.sum(self.g * self.log_p, axis=1, keepdims=True), class_weights)

    def overlap(self, score, squared: bool, batch: bool, background: bool):
        """1 less the mean over classes of `score(I, P, G)`, of each sample, then their mean, or of the whole batch."""
        p = ops.exp(self.log_p)
        weighted = self.weight * p
        sums = [
            ops.sum(weighted * self.g, axis=-1),  # (batch, classes)
            ops.sum(weighted * p if squared else weighted, axis=-1),
            ops.sum(self.weight * self.g, axis=-1),
        ]
        if batch:
            sums = [ops.sum(self.sample_weight[:, None] * value, axis=0, keepdims=True) for value in sums]
        scores = score(*sums)  # (batch or 1, classes)
        losses = 1 - ops.mean(scores if background else scores[:, 1:], axis=-1)
        if batch:
            return self.checked(losses[0])
        # A sample in which all pixels are ignored does not count; its score would be a perfect one.
        counts = self.sample_weight * ops.cast(ops.any(self.weight > 0, axis=(1, 2)), "float32")
        return self.checked(ops.divide_no_nan(ops.sum(losses * counts), ops.sum(counts)))

    def checked(self, value):
        """`value`, or NaN if a label is no class: it would count as none of them, and nobody would see it."""
        return value * ops.where(self.any_wrong, np.float32(np.nan), np.float32(1))

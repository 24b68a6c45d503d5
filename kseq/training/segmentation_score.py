"""The Dice score of a validation set, while a model trains."""

import keras
import numpy as np
from keras import ops

from kseq.errors import InputError
from kseq.training.pixels import resize_labels


@keras.saving.register_keras_serializable(package="kseq")
class DiceScore(keras.metrics.Metric):
    """The mean over classes of the Dice score of all pixels of all batches,

        2 |T_c ∩ A_c| / (|T_c| + |A_c|),   T the true pixels of class c, A those whose largest logit is that of c.

    The pixels are counted over all batches first, so it does not depend on how the set was cut. Classes that are
    neither true nor predicted anywhere do not count. Of each image, and distances of surfaces: `segmentation_metrics`.

    Compiled under its name "dice", `Run.fit_arguments(monitor="val_dice")` keeps the epoch with the highest.

    Args:
        num_classes: with the background.
        ignore_label: of pixels that do not count.
        background: whether class 0 counts in the mean.
        name: of the metric.
        dtype: of the metric's results.

    Raises:
        InputError: in an update, if the logits have another number of classes.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        ignore_label: int | None = None,
        background: bool = False,
        name: str = "dice",
        dtype=None,
    ):
        super().__init__(name=name, dtype=dtype)
        self.num_classes, self.ignore_label, self.background = num_classes, ignore_label, background
        self.both = self.add_variable((num_classes,), "zeros", dtype="float32", name="both")
        self.true = self.add_variable((num_classes,), "zeros", dtype="float32", name="true")
        self.predicted = self.add_variable((num_classes,), "zeros", dtype="float32", name="predicted")

    def update_state(self, y_true, y_pred, sample_weight=None):
        if y_pred.shape[-1] != self.num_classes:
            raise InputError(
                f"num_classes {self.num_classes}: the logits have the shape {tuple(y_pred.shape)}, their last axis the "
                f"classes; give {y_pred.shape[-1]}"
            )
        space = tuple(y_pred.shape[1:-1])
        labels = resize_labels(ops.cast(y_true, "int32"), space)
        answers = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        weight = ops.ones_like(labels, dtype="float32")
        if self.ignore_label is not None:
            weight = ops.cast(ops.not_equal(labels, self.ignore_label), "float32")
        if sample_weight is not None:
            sample_weight = ops.cast(sample_weight, "float32")
            if len(sample_weight.shape) != len(space) + 1 or tuple(sample_weight.shape[1:]) == (1,):
                sample_weight = ops.reshape(sample_weight, (-1, *[1] * len(space)))
            else:
                sample_weight = resize_labels(sample_weight, space)
            weight = weight * sample_weight
        size = int(np.prod(space))
        labels, answers, weight = (ops.reshape(x, (-1, 1, size)) for x in (labels, answers, weight))
        classes = np.arange(self.num_classes, dtype="int32")[:, None]
        true, predicted = ops.equal(labels, classes), ops.equal(answers, classes)  # (batch, classes, pixels)
        for variable, found in (
            (self.both, ops.logical_and(true, predicted)),
            (self.true, true),
            (self.predicted, predicted),
        ):
            variable.assign_add(ops.sum(ops.cast(found, "float32") * weight, axis=(0, 2)))

    def result(self):
        first = 0 if self.background else 1
        both, total = self.both[first:], (self.true + self.predicted)[first:]
        count = ops.sum(ops.cast(total > 0, "float32"))
        return ops.divide_no_nan(ops.sum(ops.divide_no_nan(2 * both, total)), count)

    def get_config(self):
        own = {"num_classes": self.num_classes, "ignore_label": self.ignore_label, "background": self.background}
        return super().get_config() | own

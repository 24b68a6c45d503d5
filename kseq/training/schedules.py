"""Learning rates over the steps of a job."""

import keras
from keras import ops

from kseq.errors import InputError


def warmup_cosine(learning_rate: float, steps: int, *, warmup: float = 0.05) -> keras.optimizers.schedules.CosineDecay:
    """Rise linearly from 0 to `learning_rate`, then fall to 0 as half a cosine.

    Args:
        learning_rate: the highest.
        steps: of the whole job, `epochs * len(batches)`.
        warmup: share of the steps in which it rises.

    Raises:
        InputError: if there is no step, or the share is not from 0 to below 1.
    """
    if steps < 1:
        raise InputError(f"steps {steps!r}: give 1 or more")
    if not 0 <= warmup < 1:
        raise InputError(f"warmup {warmup!r}: give a share of the steps from 0 to below 1")
    rising = int(warmup * steps)
    if rising == 0:
        return keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.schedules.CosineDecay(0.0, steps - rising, warmup_target=learning_rate, warmup_steps=rising)


@keras.saving.register_keras_serializable(package="kseq")
class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """The schedule of the transformer: linear in the first `warmup_steps`, then as 1 / √step,

        scale · embed_dim^(−1/2) · min(step^(−1/2), step · warmup_steps^(−3/2)),  step = 1, 2, …

    Source: Vaswani et al. 2017 (arXiv 1706.03762), equation 3; its highest rate, with 512 and 4,000, is 7e-4.

    Args:
        embed_dim: size of a token of the model.
        warmup_steps: where the rate is highest.
        scale: a factor.

    Raises:
        InputError: if `embed_dim` or `warmup_steps` is below 1.
    """

    def __init__(self, embed_dim: int, *, warmup_steps: int = 4000, scale: float = 1.0):
        super().__init__()
        for argument, value in (("embed_dim", embed_dim), ("warmup_steps", warmup_steps)):
            if value < 1:
                raise InputError(f"{argument} {value!r}: give 1 or more")
        self.embed_dim, self.warmup_steps, self.scale = embed_dim, warmup_steps, scale

    def __call__(self, step):
        step = ops.cast(step, "float32") + 1.0  # Keras counts from 0
        rate = ops.minimum(ops.rsqrt(step), step * self.warmup_steps**-1.5)
        return self.scale * self.embed_dim**-0.5 * rate

    def get_config(self):
        return {"embed_dim": self.embed_dim, "warmup_steps": self.warmup_steps, "scale": self.scale}

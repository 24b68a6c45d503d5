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


@keras.saving.register_keras_serializable(package="kseq")
class Polynomial(keras.optimizers.schedules.LearningRateSchedule):
    """Linear from 0 in the first `warmup_steps`, then with t = (step − warmup_steps) / (steps − warmup_steps) up to 1

        end + (learning_rate − end) (1 − t)^power,

    and `end` from then on. `keras.optimizers.schedules.PolynomialDecay` has no warm-up. Made by `polynomial`.

    Args:
        learning_rate: the highest.
        steps: of the whole job.
        power: of the fall.
        warmup_steps: in which it rises; below `steps`.
        end: the last rate.
    """

    def __init__(self, learning_rate: float, steps: int, power: float, warmup_steps: int, end: float):
        super().__init__()
        self.learning_rate, self.steps, self.power = learning_rate, steps, power
        self.warmup_steps, self.end = warmup_steps, end

    def __call__(self, step):
        step = ops.cast(step, "float32")
        left = ops.clip((self.steps - step) / (self.steps - self.warmup_steps), 0.0, 1.0)
        rate = self.end + (self.learning_rate - self.end) * ops.power(left, self.power)
        if not self.warmup_steps:
            return rate
        return ops.where(step < self.warmup_steps, self.learning_rate * step / self.warmup_steps, rate)

    def get_config(self):
        names = ("learning_rate", "steps", "power", "warmup_steps", "end")
        return {name: getattr(self, name) for name in names}


def polynomial(
    learning_rate: float, steps: int, *, power: float = 0.9, warmup: float = 0.0, end: float = 0.0
) -> Polynomial:
    """The "poly" schedule of segmentation: rise linearly from 0, then fall as (1 − t)^power.

    DeepLab (Chen et al. 2018), SETR, TransUNet and nnU-Net: `power=0.9` without warm-up.

    Args:
        learning_rate: the highest.
        steps: of the whole job, `epochs * len(batches)`.
        power: of the fall; 1 is linear.
        warmup: share of the steps in which it rises.
        end: the last rate.

    Raises:
        InputError: if there is no step, the share is not from 0 to below 1, or `power` is not above 0.
    """
    if steps < 1:
        raise InputError(f"steps {steps!r}: give 1 or more")
    if not 0 <= warmup < 1:
        raise InputError(f"warmup {warmup!r}: give a share of the steps from 0 to below 1")
    if not power > 0:
        raise InputError(f"power {power!r}: give a number above 0")
    return Polynomial(learning_rate, steps, power, int(warmup * steps), end)

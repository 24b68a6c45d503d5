"""A loop over time and a gradient of one's own, as each backend writes them; both in the manner of JAX."""

from collections.abc import Callable

import keras
from keras import ops

Tensors = tuple  # of tensors of the backend
STEPS = 5  # that TensorFlow prepares together: few enough for the cache, many enough for fewer operations


def _as_they_are(*sequences):
    return sequences


def scan(
    step: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]],
    states: Tensors,
    sequences: Tensors,
    sizes: tuple[int, ...],
    *,
    prepare: Callable[..., Tensors] = _as_they_are,
    reverse: bool = False,
) -> tuple[Tensors, Tensors]:
    """Carry `states` through time: `states, outputs_t = step(states, inputs_t)` for t = 0 … T − 1.

    `keras.ops.scan` would do, but its outputs must look like its states on TensorFlow (Keras 3.15).

    Args:
        step: computes one step.
        states: tensors `(batch, size)` before the first step.
        sequences: tensors `(time, batch, size)`.
        sizes: last axes of the outputs of a step, tensors `(batch, size)`.
        prepare: makes the inputs from the sequences, elementwise in time: for all steps at once, for some or for one,
            whichever is faster.
        reverse: whether to begin with the last step; outputs stay in the order of the inputs.

    Returns:
        The last states, and the outputs of all steps, tensors `(time, batch, size)`.
    """
    return _SCANS[keras.backend.backend()](step, tuple(states), tuple(sequences), sizes, prepare, reverse)


def _scan_jax(step, states, sequences, sizes, prepare, reverse):
    from jax import lax

    return lax.scan(lambda states, inputs: step(states, prepare(*inputs)), states, sequences, reverse=reverse)


def _scan_tensorflow(step, states, sequences, sizes, prepare, reverse):
    import tensorflow as tf

    length = sequences[0].shape[0]
    time = length or tf.shape(sequences[0])[0]
    outputs = tuple(tf.TensorArray(states[0].dtype, time, element_shape=(None, size)) for size in sizes)
    strides = (STEPS, 1)  # the second for the steps that are left over
    if prepare is _as_they_are or (length and length < STEPS):
        strides = (1,)
    elif length is None:  # XLA refuses a slice longer than the sequence even in a loop that does not run
        missing = tf.maximum(STEPS - time, 0)
        sequences = tuple(tf.pad(sequence, [[0, missing], [0, 0], [0, 0]]) for sequence in sequences)
    state = (0, states, outputs)
    for steps in strides:

        def body(done, states, outputs, steps=steps):
            start = time - done - steps if reverse else done
            inputs = prepare(*(tf.slice(s, [start, 0, 0], [steps, -1, -1]) for s in sequences))
            inputs = list(zip(*(tf.unstack(tensor, steps) for tensor in inputs), strict=True))
            for t in reversed(range(steps)) if reverse else range(steps):
                before = states
                states, written = step(states, inputs[t])
                for new, old in zip(states, before, strict=True):
                    new.set_shape(old.shape)  # a loop may not forget what is known of a shape
                outputs = tuple(a.write(start + t, o) for a, o in zip(outputs, written, strict=True))
            return done + steps, tuple(states), outputs

        state = tf.while_loop(
            lambda done, *_, steps=steps: done + steps <= time,
            body,
            state,
            maximum_iterations=time,
            parallel_iterations=1,
        )
    return state[1], tuple(array.stack() for array in state[2])


def _scan_torch(step, states, sequences, sizes, prepare, reverse):
    inputs = list(zip(*(tensor.unbind(0) for tensor in prepare(*sequences)), strict=True))
    outputs = []
    for inputs_t in reversed(inputs) if reverse else inputs:
        states, written = step(states, inputs_t)
        outputs.append(written)
    if reverse:
        outputs.reverse()
    return tuple(states), tuple(ops.stack(column) for column in zip(*outputs, strict=True))


_SCANS = {"jax": _scan_jax, "tensorflow": _scan_tensorflow, "torch": _scan_torch}


def with_gradient(primal: Callable, forward: Callable, backward: Callable, *, training: bool = True) -> Callable:
    """A function of tensors whose gradient is `backward`, in the manner of `jax.custom_vjp`.

    `keras.ops.custom_gradient` would do, but allows one output only on PyTorch (Keras 3.15). There is no forward mode,
    and no second derivative on TensorFlow and PyTorch.

    Args:
        primal: `primal(*arguments) -> outputs`, run where no gradient is wanted, if the backend can tell (JAX).
        forward: `forward(*arguments) -> (outputs, residuals)`, run otherwise.
        backward: `backward(residuals, gradients of the outputs) -> gradients of the arguments`, `None` for an argument
            that has none. `residuals` are a tuple of tensors and `None`s.
        training: whether a gradient is to be expected; TensorFlow, which cannot tell, runs `primal` if not, and
            differentiates it by itself should it be asked to.
    """

    def function(*arguments):
        present = [i for i, argument in enumerate(arguments) if argument is not None]

        def complete(tensors):  # the arguments with their Nones, which TensorFlow does not let through
            given = dict(zip(present, tensors, strict=True))
            return [given.get(i) for i in range(len(arguments))]

        def gradients(residuals, of_outputs):
            of_arguments = backward(residuals, of_outputs)
            return tuple(of_arguments[i] for i in present)

        derived = _GRADIENTS[keras.backend.backend()](
            lambda *tensors: primal(*complete(tensors)),
            lambda *tensors: forward(*complete(tensors)),
            gradients,
            training,
        )
        return derived(*(arguments[i] for i in present))

    return function


def _gradient_jax(primal, forward, backward, _):
    import jax

    function = jax.custom_vjp(primal)
    function.defvjp(forward, backward)
    return function


def _gradient_tensorflow(primal, forward, backward, training):
    import tensorflow as tf

    if not training:
        return primal

    def refuse(*_):
        raise NotImplementedError(
            "this gradient has no second derivative and no forward mode; call the layers with training=False, or "
            "recurrent ones with use_cudnn=False"
        )

    @tf.custom_gradient
    def once(*gradients):  # or TensorFlow would take the residuals for constants, and say nothing
        return gradients, refuse

    @tf.custom_gradient
    def function(*tensors):
        outputs, residuals = forward(*tensors)

        def derivative(*of_outputs):
            found = backward(residuals, of_outputs)
            present = once(*(gradient for gradient in found if gradient is not None))
            present = iter(present if isinstance(present, (list, tuple)) else [present])
            return [None if gradient is None else next(present) for gradient in found]

        return outputs, derivative

    return function


def _gradient_torch(primal, forward, backward, _):
    import torch

    run, differentiate = forward, backward

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(context, *tensors):
            outputs, residuals = run(*tensors)
            context.save_for_backward(*residuals)
            return outputs

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(context, *gradients):
            return differentiate(context.saved_tensors, gradients)

    return Function.apply


_GRADIENTS = {"jax": _gradient_jax, "tensorflow": _gradient_tensorflow, "torch": _gradient_torch}

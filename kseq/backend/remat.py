"""Computing something again in the backward pass instead of keeping it."""

from collections.abc import Callable

import keras


def remat(function: Callable) -> Callable:
    """`function` of tensors with one output or several, of which nothing is kept for the gradient but the arguments.

    It is `keras.remat`, but on JAX: XLA on CPU drops the barrier of `jax.checkpoint` and then merges what is computed
    again with what was, so that nothing is saved (a ViT-Ti step: 370 MB with it and without). Here what is computed
    again depends on the gradient that comes in, so it cannot be merged.
    """
    return _remat_jax(function) if keras.backend.backend() == "jax" else keras.remat(function)


def _remat_jax(function):
    import jax

    def call(*arguments):
        converted, closed_over = jax.closure_convert(function, *arguments)  # weights, of which there is a gradient too

        @jax.custom_vjp
        def run(arguments, closed_over):
            return converted(*arguments, *closed_over)

        def forward(arguments, closed_over):
            return run(arguments, closed_over), (arguments, closed_over)

        def backward(kept, gradients):
            arguments, closed_over = kept
            zero = 0 * jax.tree.leaves(gradients)[0].ravel()[0]
            arguments = (arguments[0] + zero.astype(arguments[0].dtype), *arguments[1:])
            _, derive = jax.vjp(lambda a, c: converted(*a, *c), arguments, closed_over)
            return derive(gradients)

        run.defvjp(forward, backward)
        return run(arguments, closed_over)

    return call

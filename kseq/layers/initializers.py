"""Initializers that several weights share."""

import keras


def clone(initializer):
    """A copy with random numbers of its own, unless it has a seed; a plain function is the same again."""
    return initializer.clone() if isinstance(initializer, keras.initializers.Initializer) else initializer

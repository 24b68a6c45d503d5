"""Sizes of inputs that a model can be built for."""

from collections.abc import Sequence


def multiples(space: Sequence[int], units: Sequence[int]) -> str:
    """The sizes next to `space`, below and above, that are multiples of the unit of each axis, for a message."""
    below = tuple(max(size // unit, 1) * unit for size, unit in zip(space, units, strict=True))
    above = tuple(-(-size // unit) * unit for size, unit in zip(space, units, strict=True))
    return f"{below} or {above}" if below != above else f"{above}"

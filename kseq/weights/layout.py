"""What a source layout has to say: which checkpoints are its own, and how their tensors become our variables."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import keras
import numpy as np

from kseq.errors import InputError


@dataclass(frozen=True)
class Rule:
    """One variable of a model and the tensors of which it is made.

    Attributes:
        variable: receives the value.
        sources: name and shape of each tensor, both as the checkpoint has them.
        convert: from these tensors, in the order of `sources`, to an array in the shape of `variable`.
    """

    variable: keras.Variable
    sources: dict[str, tuple[int, ...]]
    convert: Callable[..., np.ndarray]


class Layout:
    """How one library names, orders and shapes the tensors of a checkpoint.

    A subclass states which tensors it wants; `kseq.weights.load` compares that with what there is, reports all
    differences at once, and assigns.

    Attributes:
        name: by which a user chooses it.
    """

    name = ""

    def recognises(self, names: set[str]) -> bool:
        """Whether a checkpoint with tensors of these names has this layout."""
        raise NotImplementedError

    def rules(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> list[Rule]:
        """A rule for each variable of the built `model` that has a counterpart, whether `tensors` holds it or not.

        Raises:
            InputError: if the two cannot correspond, whatever the shapes.
        """
        raise NotImplementedError

    def ignores(self, name: str, skip: Collection[str] = ()) -> bool:
        """Whether the tensor is not missed: of no use to us (an index table, a counter), or of a layer in `skip`.

        What the rules of such a layer name is not missed anyway.
        """
        return False

    def unused(self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]) -> set[str]:
        """Names of tensors that `ignores` does not know, but that are of no use to this model: a head to another."""
        return set()

    def build_shapes(
        self, model: keras.layers.Layer, tensors: dict[str, np.ndarray]
    ) -> tuple[tuple[int | None, ...], ...]:
        """The shapes of the inputs with which to build a `model` that is not built.

        Raises:
            InputError: if the checkpoint does not tell.
        """
        raise InputError(f"{model.name}: not built, so it has no weights to set; call it on data first")

"""What decoding returns, and what its loops share."""

import operator
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from kseq.backend.compile import compiled
from kseq.data.tokenizer import END, PADDING, START
from kseq.errors import InputError, KseqError

LOWEST = -1e9  # the log-probability of what cannot be: finite, so that sums and differences of it are no NaN
KEPT = 16  # compiled functions a decoder keeps


@dataclass(frozen=True)
class Hypotheses:
    """Sequences of tokens, the best first.

    Attributes:
        tokens: int32 `(batch, n_best, time)`: the prompt if there was one, what was decoded, END, then padding.
        scores: float32 `(batch, n_best)`, by which they are sorted; −∞ where there are fewer than `n_best`.
        lengths: int32 `(batch, n_best)`, the number of tokens, END counted.
        attention: float32 `(batch, n_best, time, source_time)`: row t says where the decoder looked when it chose token
            t; 0 behind the end. `None` if it was not asked for.
    """

    tokens: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray
    attention: np.ndarray | None = None


def decode(decoder, run, key: tuple, inputs, prompt, *numbers) -> Hypotheses:
    """`run(inputs, prompt, *numbers)`, compiled once for each `key`, from NumPy to NumPy; as it is for tensors.

    Raises:
        KseqError: for arrays, if the model's logits are no numbers.
    """
    if ops.is_tensor(inputs):
        return Hypotheses(*run(inputs, ops.convert_to_tensor(prompt), *map(ops.convert_to_tensor, numbers)))
    outputs = compiled_for(decoder, key, run)(inputs, prompt, *numbers)
    found = Hypotheses(*map(ops.convert_to_numpy, outputs))
    # A row always has a best sequence; −∞ behind the first one only says that there are no more.
    if np.isnan(found.scores).any() or np.isneginf(found.scores[:, 0]).any():
        raise broken()
    return found


def broken() -> KseqError:
    """What is raised where nothing can be decoded."""
    return KseqError(
        "the model's logits are no numbers; its weights are broken, or its training diverged: load others, or train "
        "again with a smaller learning rate"
    )


def compiled_for(decoder, key: tuple, function):
    """`function` compiled, or what was compiled under `key` before; the decoder keeps those used last."""
    functions = vars(decoder).setdefault("_compiled", {})
    found = functions.pop(key, None) or compiled(function, decoder.model.variables)
    functions[key] = found  # the last one now
    while len(functions) > KEPT:
        functions.pop(next(iter(functions)), None)
    return found


def check_count(name: str, value: int) -> int:
    """`value` as an int of 1 or more."""
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if count < 1:
        raise InputError(f"{name} {value!r}: give an integer, 1 or more")
    return count


def check_inputs(decoder, inputs):
    """Token numbers `(batch, …)`, an int32 array of tokens that the decoder knows if it is no tensor."""
    if ops.is_tensor(inputs):
        return inputs
    inputs = np.asarray(inputs)
    if inputs.ndim < 1 or 0 in inputs.shape or not np.issubdtype(inputs.dtype, np.integer):
        raise InputError(
            f"inputs: shape {inputs.shape}, {inputs.dtype}; give integers (batch, time), at least one row and one "
            "column (padding is allowed)"
        )
    _check_tokens("inputs", inputs, getattr(decoder, "source_vocabulary_size", None))
    return inputs.astype("int32")


def check_prompt(decoder, prompt, inputs, max_length: int, start: int | None):
    """The forced tokens `(batch, max_length)`, 0 where a token is free."""
    if start is None and (prompt is None or max_length < 2):
        raise InputError("start None: then a prompt begins, and max_length is 2 or more; give both, or a start")
    if prompt is None:
        shape = (ops.shape(inputs)[0], max_length)
        return ops.zeros(shape, "int32") if ops.is_tensor(inputs) else np.zeros(shape, "int32")
    if not ops.is_tensor(prompt):
        prompt = _check_prompt_array(decoder, np.asarray(prompt), inputs, start)
    if prompt.shape[1] > max_length:
        raise InputError(f"prompt: {prompt.shape[1]} tokens, but max_length {max_length} counts them too; give more")
    missing = [(0, 0), (0, max_length - prompt.shape[1])]
    return ops.pad(ops.cast(prompt, "int32"), missing) if ops.is_tensor(prompt) else np.pad(prompt, missing)


def _check_prompt_array(decoder, prompt, inputs, start):
    if prompt.ndim != 2 or len(prompt) != inputs.shape[0] or not np.issubdtype(prompt.dtype, np.integer):
        raise InputError(
            f"prompt: shape {prompt.shape}, {prompt.dtype}; give integers ({inputs.shape[0]}, time), a row for each of "
            "inputs"
        )
    _check_tokens("prompt", prompt, decoder.vocabulary_size)
    used = prompt != PADDING
    if (used[:, 1:] & ~used[:, :-1]).any():
        raise InputError("prompt: padding in front of a token; put it on the right")
    if start is None and not (prompt.shape[1] and used[:, 0].all()):
        raise InputError("start None: a row of prompt has no token to begin with; give a start, or a token a row")
    return prompt.astype("int32")


def _check_tokens(name: str, tokens, size: int | None):
    """Raise `InputError` for tokens out of a table of `size` rows, of which each backend reads something else."""
    wrong = tokens[(tokens < 0) | (tokens >= size)] if size is not None else ()
    if len(wrong):
        raise InputError(
            f"{name}: token {wrong[0]}: the model knows 0 to {size - 1:,}; rows made with the vocabulary of "
            "another model?"
        )


def begin(decoder, inputs, prompt, start: int | None):
    """The token fed first, `(batch,)`, the forced ones behind it, and `(constants, state)` of the decoder."""
    first = prompt[:, 0] if start is None else ops.full_like(prompt[:, 0], start)
    forced = prompt[:, 1:] if start is None else prompt
    return first, forced, decoder.begin(inputs, forced.shape[1])


def allowed_logits(logits, end: int | None):
    """Logits in float32 without PADDING and START, which are never decoded, nor END where nothing ends."""
    vocabulary = logits.shape[-1]
    banned = [PADDING, START] if end is not None else [PADDING, START, END]
    mask = np.zeros(vocabulary, "bool")
    mask[[token for token in banned if token < vocabulary]] = True
    return ops.where(mask, LOWEST, ops.cast(logits, "float32"))


def as_before(new, old):
    """Tensors `new` with the static shapes of `old`, which a loop of TensorFlow must not forget."""

    def shaped(new, old):
        return new if tuple(new.shape) == tuple(old.shape) else ops.reshape(new, ops.shape(old))

    return keras.tree.map_structure(shaped, new, old)

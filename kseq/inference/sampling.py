"""Decoding one sequence a row: greedy, by chance, and by chance one token at a time."""

from collections.abc import Iterator

import numpy as np
from keras import ops

from kseq.backend.categorical import categorical
from kseq.data.tokenizer import END, PADDING, START
from kseq.errors import InputError
from kseq.inference.hypotheses import (
    LOWEST,
    Hypotheses,
    allowed_logits,
    as_before,
    begin,
    broken,
    check_count,
    check_inputs,
    check_prompt,
    compiled_for,
    decode,
)

COLDEST = 1e-3  # a temperature at which the most probable token is drawn, and a number to divide by
BROKEN = -1  # in the place of a token: the logits are no numbers


def greedy(
    decoder,
    inputs,
    max_length: int,
    *,
    prompt=None,
    start: int | None = START,
    end: int | None = END,
    attention: bool = False,
) -> Hypotheses:
    """The most probable token at each step.

    Args:
        decoder: of a model, `kseq.inference.decoder(model)`.
        inputs: int `(batch, source_time)`, the sources of a translator; for a language model any integers
            `(batch, …)`, which only say how many rows there are. An array is decoded by a compiled loop into arrays;
            tensors by the bare loop into tensors, inside a `tf.function` or `jax.jit` of yours.
        max_length: the most tokens of a result, prompt and END counted.
        prompt: int `(batch, prompt_time)`, tokens that a result must begin with, padded on the right; each row is
            continued where its own prompt ends.
        start: the token fed first; `None` for a model that knows none: the first one of the prompt.
        end: the token after which a row is padded; `None` for a text without an end, which reaches `max_length`.
        attention: whether to return the attention, if the decoder has one.

    Returns:
        `Hypotheses` with `n_best` 1; a score is log P(tokens | inputs, prompt), the sum over the tokens decoded.
        PADDING and START (and END, where `end` is `None`) are never decoded; P is a distribution of the others.

    Raises:
        InputError: if an argument is out of range, an array has tokens that the model does not know, `prompt` is longer
            than `max_length` or padded in front, or there is no attention to return.
        KseqError: if arrays are decoded and the model's logits are no numbers.
    """
    return _generate(decoder, inputs, max_length, prompt, start, end, attention, None, None, None, 0)


def sample(
    decoder,
    inputs,
    max_length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    prompt=None,
    start: int | None = START,
    end: int | None = END,
    attention: bool = False,
) -> Hypotheses:
    """Tokens drawn from softmax(logits / temperature), or from its most probable tokens.

    The samplers of keras-hub keep their random state between calls (the same seed, another text) and have the
    temperature compiled in; here seed, temperature and `top_p` are arguments of what is compiled. Sources: top k, Fan
    et al. 2018 (arXiv 1805.04833); nucleus, Holtzman et al. 2020 (arXiv 1904.09751), section 3.1.

    Args:
        decoder: as in `greedy`, like the arguments that are not named here.
        inputs: as in `greedy`.
        max_length: as in `greedy`.
        temperature: 0 for `greedy`; below 1 the probable become more probable. What is below 0.001 counts as that.
        top_k: draw from the k most probable tokens only; more than there are means all.
        top_p: then draw from the fewest of these, most probable first, whose share of the probability reaches `top_p`,
            in (0, 1].
        seed: the same seed gives the same tokens for the same batch on the same backend; rows of a batch differ. `None`
            takes one from `numpy.random`, which `keras.utils.set_random_seed` sets.
        prompt: as in `greedy`.
        start: as in `greedy`.
        end: as in `greedy`.
        attention: as in `greedy`.

    Returns:
        As `greedy`; P of the scores is that of the model, at temperature 1 and of all tokens.

    Raises:
        InputError: as `greedy`.
        KseqError: as `greedy`.
    """
    options = check_sampling(temperature, top_k, top_p, seed)
    return _generate(decoder, inputs, max_length, prompt, start, end, attention, *options)


def stream(
    decoder,
    prompt,
    max_length: int,
    *,
    inputs=None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    start: int | None = START,
    end: int | None = END,
) -> Iterator[int]:
    """The tokens of `sample` behind the prompt, one by one as they are drawn; END is not among them.

    Args:
        decoder: as in `greedy`.
        prompt: tokens of one text, `(time,)`; it may be empty where there is a `start`.
        max_length: as in `greedy`.
        inputs: a source `(1, source_time)` where the decoder reads one.
        temperature: as in `sample`.
        top_k: as in `sample`.
        top_p: as in `sample`.
        seed: as in `sample`.
        start: as in `greedy`.
        end: as in `greedy`.

    Raises:
        InputError: as `sample`, when called, not when the first token is asked for.
        KseqError: as `sample`, when a token is asked for.
    """
    temperature, top_k, top_p, seed = check_sampling(temperature, top_k, top_p, seed)
    max_length = check_count("max_length", max_length)
    prompt = np.asarray(prompt, "int32").reshape(1, -1)
    count = int((prompt != PADDING).sum())
    inputs = check_inputs(decoder, np.zeros((1, 1), "int32") if inputs is None else inputs)
    prompt = check_prompt(decoder, prompt, inputs, max_length, start)
    choose = _chooser(temperature is not None, top_k, top_p is not None)
    numbers = _numbers(temperature, top_p, seed)

    def prepare(inputs, prompt):
        token, _, kept = begin(decoder, inputs, prompt, start)
        return token, *kept

    def step(token, index, state, constants, *numbers):
        logits, new, _ = decoder.step(token, index, state, constants)
        logits = allowed_logits(logits, end)
        is_broken = ops.isnan(ops.sum(ops.softmax(logits), axis=-1))
        return ops.where(is_broken, BROKEN, choose(logits, index, *numbers)), as_before(new, state)

    prepare = compiled_for(decoder, ("prepare", start, max_length), prepare)
    step = compiled_for(decoder, ("step", end, temperature is None, top_k, top_p is None), step)

    def tokens():
        fed, constants, state = prepare(inputs, prompt)
        skipped = 1 if start is None else 0  # tokens of the prompt that have been fed as the first
        for index in range(max_length - skipped):
            fed, state = step(fed, np.int32(index), state, constants, *numbers)
            place = index + skipped
            if place < count:
                fed = prompt[:, place]
                if int(fed[0]) == end:
                    return
                continue
            token = int(ops.convert_to_numpy(fed)[0])
            if token == BROKEN:
                raise broken()
            if token == end:
                return
            yield token

    return tokens()


def check_sampling(temperature, top_k, top_p, seed):
    """The options of `sample`, `temperature` `None` for greedy, and a seed that is one."""
    if not ops.is_tensor(temperature):
        if not 0 <= temperature < float("inf"):
            raise InputError(f"temperature {temperature!r}: give 0 (the most probable token) or more")
        temperature = temperature or None
    top_k = None if top_k is None else check_count("top_k", top_k)
    if top_p is not None and not ops.is_tensor(top_p) and not 0 < top_p <= 1:
        raise InputError(f"top_p {top_p!r}: give a share of the probability, above 0 and at most 1")
    if seed is None:
        seed = np.random.randint(2**31)
    elif not ops.is_tensor(seed) and not (isinstance(seed, int | np.integer) and 0 <= seed < 2**31):
        raise InputError(f"seed {seed!r}: give an integer from 0 to 2³¹ − 1, or None")
    return temperature, top_k, top_p, seed


def _numbers(temperature, top_p, seed):
    """What is drawn by, as arguments of what is compiled."""
    given = (1.0 if temperature is None else temperature, 1.0 if top_p is None else top_p)
    numbers = [x if ops.is_tensor(x) else np.float32(x) for x in given]
    return *numbers, seed if ops.is_tensor(seed) else np.int32(seed)


def _chooser(random: bool, top_k: int | None, nucleus: bool):
    """`choose(logits, index, temperature, top_p, seed) -> tokens (batch,)`."""

    def choose(logits, index, temperature, top_p, seed):
        if not random:
            return ops.cast(ops.argmax(logits, axis=-1), "int32")
        # Only differences matter. From the largest on they stay finite at any temperature, and what is banned apart.
        possible = logits > LOWEST
        logits = (logits - ops.max(logits, axis=-1, keepdims=True)) / ops.maximum(temperature, COLDEST)
        logits = ops.where(possible, logits, LOWEST)
        if top_k is None and not nucleus:
            return categorical(logits, seed, index)
        vocabulary = logits.shape[-1]
        logits, tokens = ops.top_k(logits, min(top_k or vocabulary, vocabulary))  # sorted
        if nucleus:
            logits = nucleus_logits(logits, top_p)
        place = categorical(logits, seed, index)[:, None]
        return ops.cast(ops.take_along_axis(tokens, place, axis=-1)[:, 0], "int32")

    return choose


def nucleus_logits(logits, top_p):
    """Sorted logits, `LOWEST` behind the first ones whose probability reaches `top_p`."""
    probabilities = ops.softmax(logits)
    before = ops.cumsum(probabilities, axis=-1) - probabilities
    # The first is always kept; at 1 all are, though rounded sums may reach 1 too early.
    kept = ops.logical_or(before < top_p, top_p >= 1)
    return ops.where(kept, logits, LOWEST)


def _generate(decoder, inputs, max_length, prompt, start, end, attention, temperature, top_k, top_p, seed):
    max_length = check_count("max_length", max_length)
    inputs = check_inputs(decoder, inputs)
    prompt = check_prompt(decoder, prompt, inputs, max_length, start)
    choose = _chooser(temperature is not None, top_k, top_p is not None)

    def run(inputs, prompt, *numbers):
        token, forced, (constants, state) = begin(decoder, inputs, prompt, start)
        steps = forced.shape[1]
        zeros = ops.zeros_like(token)
        looked = (ops.zeros((ops.shape(inputs)[0], steps, ops.shape(inputs)[1]), "float32"),) if attention else ()
        first = {
            "index": ops.convert_to_tensor(0, "int32"),
            "token": token,
            "tokens": ops.zeros_like(forced),
            "score": ops.cast(zeros, "float32"),
            "length": zeros,
            "done": ops.cast(zeros, "bool"),
            "state": state,
            "attention": looked,
        }

        def going_on(now):
            return ops.logical_and(now["index"] < steps, ops.logical_not(ops.all(now["done"])))

        def body(now):
            index, done = now["index"], now["done"]
            logits, state, looked = decoder.step(now["token"], index, now["state"], constants)
            logits = allowed_logits(logits, end)
            wanted = ops.take(forced, index, axis=1)
            is_forced = wanted != PADDING
            token = ops.where(is_forced, wanted, choose(logits, index, *numbers))
            token = ops.where(done, PADDING, token)
            log_probability = ops.take_along_axis(ops.log_softmax(logits), token[:, None], axis=-1)[:, 0]
            after = {
                "index": index + 1,
                "token": token,
                "tokens": ops.slice_update(now["tokens"], (0, index), token[:, None]),
                "score": now["score"] + ops.where(ops.logical_or(done, is_forced), 0.0, log_probability),
                "length": now["length"] + ops.cast(ops.logical_not(done), "int32"),
                "done": done if end is None else ops.logical_or(done, token == end),
                "state": state,
                "attention": (),
            }
            if attention:
                if looked is None:
                    raise InputError("attention True: this decoder has none; leave it out")
                looked = ops.where(done[:, None], 0.0, ops.cast(looked, "float32"))
                after["attention"] = (ops.slice_update(now["attention"][0], (0, index, 0), looked[:, None]),)
            return as_before(after, now)

        last = ops.while_loop(going_on, body, first)
        tokens, length = last["tokens"], last["length"]
        looked = last["attention"]
        if start is None:
            tokens, length = ops.concatenate([prompt[:, :1], tokens], axis=1), length + 1
            looked = tuple(ops.pad(x, [(0, 0), (1, 0), (0, 0)]) for x in looked)
        return tuple(x[:, None] for x in (tokens, last["score"], length, *looked))

    key = ("generate", max_length, start, end, attention, temperature is None, top_k, top_p is None)
    return decode(decoder, run, key, inputs, prompt, *_numbers(temperature, top_p, seed))

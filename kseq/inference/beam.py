"""Beam search."""

import numpy as np
from keras import ops, tree

from kseq.data.tokenizer import END, PADDING, START
from kseq.errors import InputError
from kseq.inference.hypotheses import (
    LOWEST,
    Hypotheses,
    allowed_logits,
    as_before,
    begin,
    check_count,
    check_inputs,
    check_prompt,
    decode,
)

IMPOSSIBLE = LOWEST / 2  # a log-probability below it is of a sequence that cannot be


def beam_search(
    decoder,
    inputs,
    max_length: int,
    *,
    beam_size: int = 4,
    length_penalty: float = 0.6,
    coverage_penalty: float = 0.0,
    n_best: int = 1,
    prompt=None,
    start: int | None = START,
    end: int | None = END,
    attention: bool = False,
) -> Hypotheses:
    """The sequences of highest score that a beam finds.

        score(Y, X) = log P(Y | X) / lp(Y) + cp(X, Y)
        lp(Y) = ((5 + |Y|) / 6)^α                      α = length_penalty, |Y| counts END
        cp(X, Y) = β Σᵢ log min(Σⱼ aᵢⱼ, 1)             β = coverage_penalty, aᵢⱼ the attention of token j to source i

    At each step the `beam_size` most probable continuations of the alive sequences are kept. Those that end leave the
    beam for a pool of the `n_best` finished ones of highest score, so a good short sequence is not lost, and the beam
    is full again at the next step. Hence a beam of 1 is `greedy`, and one as wide as the number of prefixes is an
    exhaustive search. A row is done when none of its alive sequences can enter the pool. Their scores are at most
    log P / lp(max_length): log P only falls, lp grows for α ≥ 0, and cp is at most 0. Sequences that have not ended at
    `max_length` compete as they are.

    Source: Wu et al. 2016 (arXiv 1609.08144), equation 14; the pool is that of tensor2tensor.

    Args:
        decoder: as in `greedy`, like the arguments that are not named here.
        inputs: as in `greedy`; rows do not depend on each other.
        max_length: as in `greedy`.
        beam_size: sequences alive.
        length_penalty: α ≥ 0; 0 is the bare log P, which favours short sequences.
        coverage_penalty: β ≥ 0, for decoders with attention; padding of the source counts for nothing.
        n_best: sequences returned a row, at most `beam_size`; where fewer exist, the others are empty with score −∞.
        prompt: as in `greedy`; its tokens have no log-probability, but a length.
        start: as in `greedy`.
        end: as in `greedy`.
        attention: as in `greedy`.

    Returns:
        `Hypotheses`.

    Raises:
        InputError: if an argument is out of range, or as in `greedy`.
        KseqError: as in `greedy`.
    """
    max_length = check_count("max_length", max_length)
    beam_size, n_best = check_count("beam_size", beam_size), check_count("n_best", n_best)
    if n_best > beam_size:
        raise InputError(f"n_best {n_best}: more than beam_size {beam_size}; give a wider beam")
    for name, penalty in (("length_penalty", length_penalty), ("coverage_penalty", coverage_penalty)):
        if not 0 <= penalty < float("inf"):
            raise InputError(f"{name} {penalty!r}: give 0 (none) or more")
    inputs = check_inputs(decoder, inputs)
    prompt = check_prompt(decoder, prompt, inputs, max_length, start)
    looks, keeps = bool(coverage_penalty) or attention, attention
    skipped = 1 if start is None else 0  # tokens of the prompt that are fed first, and belong to the result

    def run(inputs, prompt, alpha, beta):
        beam = _Beam(ops.shape(inputs)[0], beam_size)
        token, forced, (constants, state) = begin(decoder, inputs, prompt, start)
        steps = forced.shape[1]
        constants = beam.repeat(constants)
        real = ops.cast(inputs != PADDING, "float32")[:, None] if looks else None  # (batch, 1, source_time)

        def penalty(length):
            return ops.power((5.0 + ops.cast(length, "float32")) / 6.0, alpha)

        def score(log_probability, length, coverage):
            """Scores `(batch, sequences)`; `LOWEST` stays as it is."""
            found = log_probability / penalty(length)
            if coverage_penalty:
                seen = ops.log(ops.clip(coverage[0], 1e-9, 1.0))  # a source never looked at costs 20.7, not ∞
                found = found + beta * ops.sum(seen * real, axis=-1)
            return ops.where(log_probability < IMPOSSIBLE, LOWEST, found)

        def empty(count):
            """No sequences: their tokens, and what is kept of the attention."""
            rows = (ops.shape(inputs)[0], count)
            coverage = (ops.zeros((*rows, ops.shape(inputs)[1]), "float32"),) if looks else ()
            looked = (ops.zeros((*rows, steps, ops.shape(inputs)[1]), "float32"),) if keeps else ()
            return {"tokens": ops.zeros((*rows, steps), "int32"), "coverage": coverage, "attention": looked}

        def going_on(now):
            best = ops.max(now["log_probability"], axis=-1)
            bound = ops.where(best < IMPOSSIBLE, LOWEST, best / penalty(steps + skipped))
            open_rows = bound > now["pool"]["score"][:, -1]
            return ops.logical_and(now["index"] < steps, ops.any(open_rows))

        def body(now):
            index, length = now["index"], now["index"] + 1 + skipped
            logits, state, looked = decoder.step(ops.reshape(now["token"], (-1,)), index, now["state"], constants)
            log_probabilities = ops.log_softmax(allowed_logits(logits, end))
            log_probabilities = beam.force(log_probabilities, ops.take(forced, index, axis=1))
            vocabulary = log_probabilities.shape[-1]

            # The best continuations, (batch, beam_size), END among them.
            total = now["log_probability"][..., None] + beam.split(log_probabilities)
            found, place = ops.top_k(ops.reshape(total, (-1, beam_size * vocabulary)), beam_size)
            parent, token = ops.cast(place // vocabulary, "int32"), ops.cast(place % vocabulary, "int32")
            found = ops.where(found < IMPOSSIBLE, LOWEST, found)

            alive = now["alive"]
            if looks:
                if looked is None:
                    raise InputError("attention, coverage_penalty: this decoder has no attention; leave both out")
                looked = beam.split(ops.cast(looked, "float32"))  # (batch, beam_size, source_time)
                alive = alive | {"coverage": (alive["coverage"][0] + looked,)}
            if keeps:
                written = ops.slice_update(alive["attention"][0], (0, 0, index, 0), looked[:, :, None])
                alive = alive | {"attention": (written,)}
            alive = beam.take(alive, parent, beam_size)
            alive["tokens"] = ops.slice_update(alive["tokens"], (0, 0, index), token[..., None])

            pool, log_probability = now["pool"], found
            if end is not None:
                ended = token == end
                scores = score(ops.where(ended, found, LOWEST), length, alive["coverage"])
                pool = beam.best(pool, alive | {"score": scores, "length": ops.full_like(token, 1) * length})
                log_probability = ops.where(ended, LOWEST, found)
            after = {
                "index": index + 1,
                "token": token,
                "log_probability": log_probability,
                "state": beam.take_state(state, parent),
                "alive": alive,
                "pool": pool,
            }
            return as_before(after, now)

        none = ops.zeros((ops.shape(inputs)[0], n_best), "int32")
        first = {
            "index": ops.convert_to_tensor(0, "int32"),
            "token": beam.split(beam.repeat(token)),
            "log_probability": beam.first(),
            "state": beam.repeat(state),
            "alive": empty(beam_size),
            "pool": empty(n_best) | {"score": ops.cast(none, "float32") + LOWEST, "length": none},
        }
        last = ops.while_loop(going_on, body, first)
        length = last["index"] + skipped
        scores = score(last["log_probability"], length, last["alive"]["coverage"])
        unfinished = last["alive"] | {"score": scores, "length": ops.full_like(last["token"], 1) * length}
        pool = beam.best(last["pool"], unfinished)

        exists = pool["score"] > IMPOSSIBLE
        tokens, looked = pool["tokens"], pool["attention"]
        if start is None:
            begun = ops.repeat(prompt[:, None, :1], n_best, axis=1)
            tokens = ops.concatenate([begun, tokens], axis=-1)
            looked = tuple(ops.pad(x, [(0, 0), (0, 0), (1, 0), (0, 0)]) for x in looked)
        tokens = ops.where(exists[..., None], tokens, PADDING)
        looked = tuple(ops.where(exists[..., None, None], x, 0.0) for x in looked)
        return tokens, ops.where(exists, pool["score"], -np.inf), ops.where(exists, pool["length"], 0), *looked

    key = ("beam", max_length, beam_size, n_best, bool(coverage_penalty), start, end, attention)
    return decode(decoder, run, key, inputs, prompt, np.float32(length_penalty), np.float32(coverage_penalty))


class _Beam:
    """Sequences `(batch, size, …)`, and as the model sees them, `(batch · size, …)`."""

    def __init__(self, batch, size: int):
        self.batch, self.size = batch, size

    def repeat(self, tensors):
        """Nested `(batch, …)` as `(batch · size, …)`, each row `size` times."""
        return tree.map_structure(lambda x: ops.repeat(x, self.size, axis=0), tensors)

    def split(self, x):
        """`(batch · size, …)` as `(batch, size, …)`."""
        return ops.reshape(x, (-1, self.size, *ops.shape(x)[1:]))

    def first(self):
        """Log-probabilities before the first step: one sequence a row, so that none is found twice."""
        one = np.array([0.0] + [LOWEST] * (self.size - 1), "float32")
        return ops.zeros((self.batch, self.size), "float32") + one

    def force(self, log_probabilities, wanted):
        """Log-probabilities `(batch · size, vocabulary)`, 0 for the one token wanted in a row `(batch,)`, if any."""
        wanted = self.repeat(wanted)[:, None]
        only = ops.where(ops.arange(log_probabilities.shape[-1], dtype="int32") == wanted, 0.0, LOWEST)
        return ops.where(wanted == PADDING, log_probabilities, only)

    def take_state(self, state, parent):
        """Nested `(batch · size, …)` of the sequences `parent` `(batch, size)`."""
        rows = self._rows(parent, self.size)
        return tree.map_structure(lambda x: ops.take(x, rows, axis=0), state)

    def take(self, tensors, place, size):
        """`x[b, place[b, k]]` of nested `(batch, size, …)`."""
        rows = self._rows(place, size)

        def taken(x):
            rest = ops.shape(x)[2:]
            x = ops.take(ops.reshape(x, (-1, *rest)), rows, axis=0)
            return ops.reshape(x, (-1, place.shape[1], *rest))

        return tree.map_structure(taken, tensors)

    def best(self, pool, candidates):
        """The best of the pool and of the candidates, by `"score"`, as many as the pool holds."""
        held = pool["score"].shape[1]
        both = tree.map_structure(lambda a, b: ops.concatenate([a, b], axis=1), pool, candidates)
        _, place = ops.top_k(both["score"], held)
        return self.take(both, place, held + self.size)

    def _rows(self, place, size):
        """Rows of `(batch · size, …)` that are at places `(batch, k)` of their own row."""
        offset = ops.arange(self.batch, dtype="int32")[:, None] * size
        return ops.reshape(ops.cast(place, "int32") + offset, (-1,))

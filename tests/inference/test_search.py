import itertools

import keras
import numpy as np
import pytest
from keras import ops

from kseq.data.tokenizer import END, PADDING, START, UNKNOWN
from kseq.errors import InputError, KseqError
from kseq.inference import UncachedDecoder, beam_search, greedy, sample, stream
from kseq.inference.hypotheses import KEPT, compiled_for
from kseq.inference.sampling import nucleus_logits
from tests.inference.toy_decoders import GRUDecoder, TableDecoder, ToyTransformerDecoder, toy_transformer

SOURCES = np.array([[3, 1, 2], [1, 7, 0], [2, 0, 0], [4, 5, 6], [5, 5, 0]])
ALLOWED = (UNKNOWN, END, 4, 5)  # of a vocabulary of 6
ROWS = np.zeros((2, 1), "int32")  # two rows for a language model


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_functions():
    yield
    if keras.backend.backend() == "jax":  # many small executables at once can crash XLA on CPU
        import jax

        jax.clear_caches()


@pytest.fixture
def table():
    return TableDecoder(sources=6, seed=3)


def penalty(length, alpha):
    return ((5 + length) / 6) ** alpha


def every_sequence(table, row, alpha=0.0, beta=0.0, length=4, forced=()):
    """All sequences from START, by the equations of the docstring: `[(score, tokens)]`, the best first."""
    log_probabilities, attention = table.log_probabilities(row[0], ALLOWED), table.attention(row)
    found = []

    def extend(tokens, log_probability, looked):
        if len(tokens) == length or (tokens and tokens[-1] == END):
            coverage = sum(np.log(min(looked[i], 1)) for i in range(len(row)) if row[i] != PADDING)
            score = log_probability / penalty(len(tokens), alpha) + beta * coverage
            found.append((score, tokens + [PADDING] * (length - len(tokens))))
            return
        index, last = len(tokens), tokens[-1] if tokens else START
        for token in [forced[index]] if index < len(forced) else ALLOWED:
            added = 0 if index < len(forced) else log_probabilities[index, last, token]
            extend([*tokens, token], log_probability + added, looked + attention[index, last])

    extend([], 0.0, np.zeros(len(row)))
    return sorted(found, key=lambda sequence: -sequence[0])


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (0.6, 0.0), (2.0, 0.0), (0.6, 0.3)])
def test_a_wide_beam_is_an_exhaustive_search(table, alpha, beta):
    found = beam_search(table, SOURCES, 4, beam_size=120, n_best=6, length_penalty=alpha, coverage_penalty=beta)
    for row, source in enumerate(SOURCES):
        scores, tokens = zip(*every_sequence(table, source, alpha, beta)[:6], strict=True)
        np.testing.assert_allclose(found.scores[row], scores, rtol=1e-4)
        np.testing.assert_array_equal(found.tokens[row], tokens)
        np.testing.assert_array_equal(found.lengths[row], (np.array(tokens) != PADDING).sum(axis=1))


def test_a_beam_of_one_is_greedy(table):
    for decoder, sources, length in ((table, SOURCES, 4), (GRUDecoder(), SOURCES, 9)):
        expected = greedy(decoder, sources, length)
        for alpha in (0.0, 1.0):
            found = beam_search(decoder, sources, length, beam_size=1, length_penalty=alpha)
            np.testing.assert_array_equal(found.tokens, expected.tokens)
            np.testing.assert_array_equal(found.lengths, expected.lengths)
            np.testing.assert_allclose(found.scores, expected.scores / penalty(expected.lengths, alpha), rtol=1e-4)


def test_greedy_takes_the_most_probable_token_and_stops_at_the_end(table):
    found = greedy(table, SOURCES, 4, attention=True)
    assert any(length < 4 for length in found.lengths[:, 0])
    for row, source in enumerate(SOURCES):
        log_probabilities, attention = table.log_probabilities(source[0], ALLOWED), table.attention(source)
        tokens, last, score, looked = [], START, 0.0, []
        while len(tokens) < 4 and last != END:
            looked.append(attention[len(tokens), last])
            token = int(np.argmax(log_probabilities[len(tokens), last]))
            score += log_probabilities[len(tokens), last, token]
            tokens.append(token)
            last = token
        count = found.lengths[row, 0]
        assert found.tokens[row, 0].tolist() == tokens + [PADDING] * (4 - len(tokens))
        assert (found.tokens[row, 0, count:] == PADDING).all()
        np.testing.assert_allclose(found.scores[row, 0], score, rtol=1e-4)
        np.testing.assert_allclose(found.attention[row, 0, :count], looked, atol=1e-5)
        assert not found.attention[row, 0, count:].any()


def test_attention_follows_its_sequence_through_the_beam(table):
    found = beam_search(table, SOURCES, 4, beam_size=5, n_best=3, attention=True)
    assert found.attention.shape == (5, 3, 4, 3)
    for row, k in itertools.product(range(5), range(3)):
        tokens, attention = found.tokens[row, k], table.attention(SOURCES[row])
        for t in range(found.lengths[row, k]):
            last = tokens[t - 1] if t else START
            np.testing.assert_allclose(found.attention[row, k, t], attention[t, last], atol=1e-5)
        assert not found.attention[row, k, found.lengths[row, k] :].any()


def test_a_good_finished_sequence_is_not_lost():
    table = TableDecoder(length=8, sources=1)
    # END has 0.4 at the first step; then every step costs much, and two tokens keep the beam full.
    logits = np.full((1, 8, 6, 6), -20.0, "float32")
    logits[0, 0, START, [END, 4, 5]] = np.log([0.4, 0.3, 0.3])
    logits[0, 1:, :, [UNKNOWN, 4, 5]] = np.log([0.3, 0.35, 0.35])[:, None, None]
    table.model.variables[0].assign(logits)
    found = beam_search(table, [[1, 1, 1]], 8, beam_size=2, n_best=2, length_penalty=0.0)
    assert found.tokens[0, 0].tolist() == [END] + [PADDING] * 7
    np.testing.assert_allclose(found.scores[0, 0], np.log(0.4), rtol=1e-5)
    assert found.lengths[0, 1] == 8  # one that has not ended competes as it is


def test_a_longer_sequence_wins_by_its_length_penalty():
    table = TableDecoder(length=8, sources=1)
    logits = np.full((1, 8, 6, 6), -20.0, "float32")
    logits[0, 0, START, [END, 4]] = np.log([0.52, 0.48])
    logits[0, 1:, 4, 4] = 0
    table.model.variables[0].assign(logits)
    short = beam_search(table, [[1, 1, 1]], 8, beam_size=2, length_penalty=0.0)
    long = beam_search(table, [[1, 1, 1]], 8, beam_size=2, length_penalty=1.0)  # the search must not stop at END
    assert (short.lengths[0, 0], long.lengths[0, 0]) == (1, 8)
    np.testing.assert_allclose(long.scores[0, 0], np.log(0.48) / penalty(8, 1), rtol=1e-3)


def test_a_batch_gives_what_its_rows_give_alone():
    # The GRU's rows end at different steps; a width that is padded must change nothing.
    decoder = GRUDecoder()
    together = beam_search(decoder, SOURCES, 9, beam_size=3, n_best=2)
    assert len({tuple(row) for row in together.lengths}) > 1
    for row, source in enumerate(SOURCES[:4]):
        alone = beam_search(decoder, source[None, : (source != 0).sum()], 9, beam_size=3, n_best=2)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], rtol=1e-4)


@pytest.mark.parametrize("translates", [True, False])
def test_cached_decoding_equals_uncached(translates):
    model = toy_transformer(translates=translates)
    decoders = ToyTransformerDecoder(model), UncachedDecoder(model)
    inputs = SOURCES if translates else np.zeros((5, 1), "int32")
    prompt = None if translates else [[4, 5, 6], [7, 0, 0], [8, 9, 0], [5, 5, 5], [9, 0, 0]]
    if translates:
        cached, uncached = (beam_search(decoder, inputs, 7, beam_size=3, n_best=2) for decoder in decoders)
    else:
        cached, uncached = (sample(decoder, inputs, 7, top_p=0.9, seed=5, prompt=prompt) for decoder in decoders)
    np.testing.assert_array_equal(cached.tokens, uncached.tokens)
    np.testing.assert_allclose(cached.scores, uncached.scores, rtol=1e-4)


def test_a_prompt_is_kept_and_continued_where_each_row_ends(table):
    prompt = np.array([[4, 5], [5, 0], [0, 0], [4, 4], [1, 0]])
    beam = beam_search(table, SOURCES, 4, beam_size=40, n_best=3, prompt=prompt, length_penalty=0.6)
    for row, source in enumerate(SOURCES):
        forced = [token for token in prompt[row] if token]
        scores, tokens = zip(*every_sequence(table, source, 0.6, forced=forced)[:3], strict=True)
        np.testing.assert_allclose(beam.scores[row], scores, rtol=1e-4)
        np.testing.assert_array_equal(beam.tokens[row], tokens)
    for found in (greedy(table, SOURCES, 4, prompt=prompt), sample(table, SOURCES, 4, prompt=prompt, seed=0)):
        for row in range(5):
            count = (prompt[row] != 0).sum()
            np.testing.assert_array_equal(found.tokens[row, 0, :count], prompt[row, :count])


def test_without_a_start_the_prompt_begins(table):
    # Fed first in the place of START, 4 is the token before position 0, and belongs to the result.
    arguments = dict(start=None, prompt=np.full((5, 1), 4), attention=True)
    table.model.variables[0].assign(table.logits[:, :, [0, 1, 2, 3, START, 5]])
    table.model.variables[1].assign(table.looks[:, :, [0, 1, 2, 3, START, 5]])
    for found in (greedy(table, SOURCES, 2, **arguments), beam_search(table, SOURCES, 2, n_best=2, **arguments)):
        first = [every_sequence(table, source, length=1)[: found.tokens.shape[1]] for source in SOURCES]
        expected = [[tokens[0] for _, tokens in sequences] for sequences in first]
        assert (found.tokens[..., 0] == 4).all()
        np.testing.assert_array_equal(found.tokens[..., 1], expected)
        assert (found.lengths == 2).all()
        assert not found.attention[:, :, 0].any()
        np.testing.assert_allclose(found.attention[:, :, 1].sum(axis=-1), 1, atol=1e-5)


def test_without_an_end_every_row_reaches_max_length(table):
    for search in (greedy, sample, beam_search):
        found = search(table, SOURCES, 4, end=None)
        assert (found.lengths == 4).all()
        assert np.isin(found.tokens, [UNKNOWN, 4, 5]).all()


def test_fewer_sequences_than_wanted_are_empty_with_a_score_of_minus_infinity():
    table = TableDecoder(vocabulary=5, length=1)
    found = beam_search(table, [[1, 2, 3]], 1, beam_size=8, n_best=6)
    assert sorted(found.tokens[0, :3, 0]) == [UNKNOWN, END, 4]
    assert np.isfinite(found.scores[0, :3]).all()
    assert (found.scores[0, 3:] == -np.inf).all()
    assert not found.tokens[0, 3:].any()
    assert not found.lengths[0, 3:].any()


def test_a_source_of_padding_alone_is_decoded():
    sources = np.array([[0, 0, 0], [4, 5, 6]])
    decoder = ToyTransformerDecoder(toy_transformer(translates=True))
    for found in (greedy(decoder, sources, 3), beam_search(TableDecoder(), sources, 4, coverage_penalty=0.2)):
        assert np.isfinite(found.scores).all()


# ---- by chance

DRAWS = 4000


def first_tokens(table, **options):
    found = sample(table, np.tile(SOURCES[:1], (DRAWS, 1)), 1, **options)
    return np.bincount(found.tokens[:, 0, 0], minlength=6) / DRAWS


@pytest.mark.parametrize(
    ("options", "support"),
    [
        ({}, 4),
        ({"temperature": 2.0}, 4),
        ({"top_k": 2}, 2),
        ({"top_k": 100}, 4),
        ({"top_p": 1.0}, 4),
        ({"top_p": "reaches two"}, 2),
        ({"top_p": 1e-6}, 1),
        ({"top_k": 3, "top_p": "second of three"}, 2),
    ],
)
def test_tokens_are_drawn_from_the_distribution(table, options, support):
    probabilities = np.exp(table.log_probabilities(SOURCES[0, 0], ALLOWED)[0, START])
    probabilities = probabilities ** (1 / options.get("temperature", 1.0))
    order = np.argsort(-probabilities)
    ranked = probabilities[order] / probabilities.sum()
    shares = {
        "reaches two": ranked[0] + ranked[1] / 2,
        # of the three alone the first two reach it, of all four they would not
        "second of three": 0.5 * (ranked[:2].sum() + ranked[:2].sum() / ranked[:3].sum()),
    }
    options = options | ({"top_p": shares.get(options["top_p"], options["top_p"])} if "top_p" in options else {})
    expected = np.zeros(6)
    expected[order[:support]] = ranked[:support] / ranked[:support].sum()
    found = first_tokens(table, seed=11, **options)
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(expected))
    deviation = np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(found - expected) <= 5 * deviation + 1e-12).all()


def test_at_extreme_temperatures_nothing_banned_or_broken_is_drawn(table):
    for options in ({}, {"top_k": 6, "top_p": 1.0}):  # 1e30 is an argument of the same compiled loop as 1e-40
        hot = first_tokens(table, seed=1, temperature=1e30, **options)
        assert not hot[[PADDING, START]].any()
        np.testing.assert_allclose(hot[[*ALLOWED]], 0.25, atol=0.05)
        coldest = first_tokens(table, seed=1, temperature=1e-40, **options)
        assert coldest[np.argmax(table.log_probabilities(SOURCES[0, 0], ALLOWED)[0, START])] == 1


def test_the_support_is_that_of_keras_hub():
    import keras_hub

    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.full(12, 0.7)).astype("float32")
    order = np.argsort(-probabilities)
    for p in (0.2, 0.5, 0.8, 0.95):
        ours = ops.convert_to_numpy(nucleus_logits(np.log(probabilities[order])[None], np.float32(p)))[0] > -1e8
        sampler = keras_hub.samplers.TopPSampler(p=p, seed=1)
        drawn = ops.convert_to_numpy(sampler.get_next_token(np.tile(probabilities, (20000, 1))))
        assert set(drawn) == set(order[ours])


def test_seeds(table):
    sources = np.tile(SOURCES[:1], (20, 1))
    once, again, other = (sample(table, sources, 4, seed=seed).tokens for seed in (7, 7, 8))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    assert len({tuple(row) for row in once[:, 0]}) > 3  # rows differ
    keras.utils.set_random_seed(1)
    first = sample(table, sources, 4).tokens
    assert (sample(table, sources, 4).tokens != first).any()
    keras.utils.set_random_seed(1)
    np.testing.assert_array_equal(sample(table, sources, 4).tokens, first)


def test_neighbouring_seeds_do_not_draw_the_same_numbers_one_step_later():
    table = TableDecoder(length=8, sources=1)
    table.model.variables[0].assign(np.zeros((1, 8, 6, 6)))  # all alike, so tokens show the numbers
    tokens = [sample(table, np.ones((30, 3), int), 8, end=None, seed=seed).tokens[:, 0] for seed in range(4)]
    for one, other in itertools.permutations(tokens, 2):
        assert np.mean(one[:, 1:] == other[:, :-1]) < 0.6  # by chance 1/3
    assert np.mean(tokens[0][:, 1:] == tokens[0][:, :-1]) < 0.6


def test_no_temperature_is_greedy(table):
    expected = greedy(table, SOURCES, 4)
    for options in ({"temperature": 0}, {"temperature": 1e-3}, {"top_k": 1}):
        found = sample(table, SOURCES, 4, seed=2, **options)
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-4)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"top_k": 4, "top_p": 0.9, "seed": 4}, {"start": None}])
def test_a_stream_gives_what_sample_gives(options):
    decoder = GRUDecoder()
    arguments = {"seed": 3, **options}
    for seed in (3, 4, 5):
        arguments["seed"] = seed
        whole = sample(decoder, SOURCES[:1], 9, prompt=[[4, 5]], **arguments)
        tokens = whole.tokens[0, 0, 2 : whole.lengths[0, 0]].tolist()
        streamed = list(stream(decoder, [4, 5], 9, inputs=SOURCES[:1], **arguments))
        assert streamed == (tokens[:-1] if tokens[-1:] == [END] else tokens)


# ---- hostile input


@pytest.mark.parametrize(
    ("search", "arguments", "message"),
    [
        (greedy, {"max_length": 0}, "max_length 0"),
        (greedy, {"max_length": 2.5}, "max_length 2.5"),
        (greedy, {"inputs": np.zeros((0, 3), int)}, r"inputs: shape \(0, 3\)"),
        (greedy, {"inputs": np.zeros((1, 0), int)}, r"inputs: shape \(1, 0\)"),
        (greedy, {"inputs": np.zeros((1, 3))}, "inputs: .* float64"),
        (greedy, {"prompt": [[0, 4]]}, "padding in front"),
        (greedy, {"prompt": [[4], [4]]}, r"prompt: shape \(2, 1\)"),
        (greedy, {"prompt": [[4, 4, 4, 4, 4]]}, "prompt: 5 tokens"),
        (greedy, {"start": None}, "start None"),
        (greedy, {"start": None, "prompt": [[0, 0]]}, "start None"),
        (beam_search, {"beam_size": 0}, "beam_size 0"),
        (beam_search, {"beam_size": 2, "n_best": 3}, "n_best 3"),
        (beam_search, {"n_best": 0}, "n_best 0"),
        (beam_search, {"length_penalty": -1.0}, "length_penalty -1.0"),
        (beam_search, {"coverage_penalty": float("nan")}, "coverage_penalty nan"),
        (sample, {"temperature": -0.5}, "temperature -0.5"),
        (sample, {"temperature": float("nan")}, "temperature nan"),
        (sample, {"top_k": 0}, "top_k 0"),
        (sample, {"top_p": 0.0}, "top_p 0.0"),
        (sample, {"top_p": 1.5}, "top_p 1.5"),
        (sample, {"seed": -1}, "seed -1"),
    ],
)
def test_bad_arguments_are_refused(table, search, arguments, message):
    arguments = {"inputs": SOURCES[:1], "max_length": 4} | arguments
    with pytest.raises(InputError, match=message):
        search(table, **arguments)


def test_logits_that_are_no_numbers_are_an_error(table):
    logits = np.where(np.arange(6) == END, -30, table.logits)  # END must not come first
    logits[2, 2] = np.nan  # of one source, at its third token
    table.model.variables[0].assign(logits)
    for search in (greedy, sample, beam_search):
        search(table, SOURCES[[0, 1]], 4)
        with pytest.raises(KseqError, match="logits are no numbers"):
            search(table, SOURCES[[0, 2]], 4)
    tokens = stream(table, [4, 4], 4, inputs=SOURCES[2:3])
    with pytest.raises(KseqError, match="logits are no numbers"):
        next(tokens)


def test_only_the_compiled_functions_used_last_are_kept():
    driven = TableDecoder()
    first = compiled_for(driven, (0,), lambda: 0)
    for key in range(1, 2 * KEPT):
        compiled_for(driven, (key,), lambda: 0)
        assert compiled_for(driven, (0,), lambda: 0) is first
    assert list(driven._compiled) == [*((key,) for key in range(KEPT + 1, 2 * KEPT)), (0,)]


def test_a_stream_refuses_when_called():
    with pytest.raises(InputError, match="top_p 2"):
        stream(GRUDecoder(), [4], 5, top_p=2)


@pytest.mark.parametrize("options", [{"attention": True}, {"coverage_penalty": 0.1}])
def test_attention_of_a_decoder_without_one_is_refused(options):
    with pytest.raises(InputError, match="no"):
        beam_search(GRUDecoder(), SOURCES, 3, **options)
    if "attention" in options:
        with pytest.raises(InputError, match="attention True"):
            greedy(GRUDecoder(), SOURCES, 3, **options)


def test_uncached_decoder_refuses_what_it_cannot_read():
    inputs = keras.Input((3,))
    with pytest.raises(InputError, match="first output is"):
        UncachedDecoder(keras.Model(inputs, keras.layers.Dense(2)(inputs)))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a graph of TensorFlow")
def test_the_whole_loop_is_one_graph_that_knows_no_sizes():
    import tensorflow as tf

    for decoder in (TableDecoder(), ToyTransformerDecoder(toy_transformer(translates=True))):

        def search(sources, seed, decoder=decoder):
            best = beam_search(decoder, sources, 4, beam_size=3)
            drawn = sample(decoder, sources, 4, top_k=3, top_p=0.9, seed=seed)
            return best.tokens, best.scores, drawn.tokens

        specs = tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((), tf.int32)
        graph = tf.function(search, autograph=False).get_concrete_function(*specs)
        for sources in (SOURCES[:3], SOURCES[:1]):
            tokens, scores, drawn = graph(tf.constant(sources, tf.int32), tf.constant(6))
            expected = beam_search(decoder, sources, 4, beam_size=3)
            np.testing.assert_array_equal(tokens, expected.tokens)
            np.testing.assert_allclose(scores, expected.scores, rtol=1e-4)
            np.testing.assert_array_equal(drawn, sample(decoder, sources, 4, top_k=3, top_p=0.9, seed=6).tokens)

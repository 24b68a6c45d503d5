"""A tokenizer as TensorFlow operations, for SavedModels that read and write texts.

Only operations of TensorFlow itself are used, not those of TensorFlow Text, so a process with nothing else than
`import tensorflow` runs them. Texts are cut into units by `kseq.data.tokenizer.split`, the function that the tokenizer
itself uses. TensorFlow is imported on use.
"""

from kseq.data.tokenizer import END, PADDING, START, UNKNOWN, Tokenizer, room_for_tokens, split


def TextGraph(tokenizer: Tokenizer):
    """A `tf.Module` with the tokenizer's two directions, to be called in graphs or eagerly.

    - `encode(texts, start=False, end=False, max_length=None)`: strings `(batch,)` to `int32` `(batch, time)`, the same
      as `tokenizer(texts, …)`. Bytes that are not UTF-8 read as "�", an unknown character.
    - `decode(tokens)`: integers `(batch, time)` to strings `(batch,)`, the same as `tokenizer.detokenize(tokens)`. A
      number outside of the vocabulary is an error of TensorFlow.

    The vocabulary is a table in this module, so make it an attribute of the module that is saved: a SavedModel lacks
    the table otherwise.
    """
    import tensorflow as tf

    class Graph(tf.Module):
        def __init__(self):
            super().__init__(name="text_graph")
            known = tokenizer.vocabulary[END + 1 :]
            numbers = tf.range(END + 1, tokenizer.vocabulary_size, dtype=tf.int32)
            entries = tf.lookup.KeyValueTensorInitializer(tf.constant(known, tf.string), numbers)
            self.numbers = tf.lookup.StaticHashTable(entries, default_value=UNKNOWN)
            self.longest = max((len(entry.removeprefix("##")) for entry in known), default=1)

        def encode(self, texts, start: bool = False, end: bool = False, max_length: int | None = None):
            room = room_for_tokens(start, end, max_length)
            units = split(texts, tokenizer.unit, tokenizer.lowercase)
            if tokenizer.unit == "subword":
                distinct, where = tf.unique(units.flat_values)
                pieces = tf.gather(_pieces(distinct, self.numbers, self.longest), where)
                rows = units.with_flat_values(pieces).merge_dims(1, 2)
            else:
                rows = units.with_flat_values(self.numbers.lookup(units.flat_values))
            column = tf.shape(texts)[:1], [1]
            first = [tf.fill(tf.concat(column, 0), START)] * start
            last = [tf.fill(tf.concat(column, 0), END)] * end
            tokens = tf.concat([*first, rows[:, :room], *last], axis=1).to_tensor(PADDING)
            return tf.pad(tokens, [[0, 0], [0, tf.maximum(0, 1 - tf.shape(tokens)[1])]])

        def decode(self, tokens):
            ended = tf.cumsum(tf.cast(tf.equal(tokens, END), tf.int32), axis=1) > 0
            surfaces = tf.where(ended, "", tf.gather(tf.constant(tokenizer.surfaces, tf.string), tokens))
            texts = tf.strings.reduce_join(surfaces, axis=1)
            return texts if tokenizer.unit == "character" else tf.strings.regex_replace(texts, "^ +| +$", "")

    return Graph()


def _pieces(units, table, longest: int):
    """The numbers of the pieces of each of `units`, as ragged `(units, pieces)`; `UNKNOWN` alone if one is unknown.

    Greedy, the longest first, for all units at once: each step tries one piece of each unit, takes it if it is in the
    table and else tries the one that is a character shorter; there are as many steps as the slowest unit needs.
    """
    import tensorflow as tf

    length = tf.strings.length(units, unit="UTF8_CHAR")
    nothing = tf.zeros_like(length)

    def goes_on(step, begin, end, known, taken):
        return (step == 0) | tf.reduce_any(begin < length)

    def try_one(step, begin, end, known, taken):
        open_ = begin < length
        piece = tf.strings.substr(units, begin, end - begin, unit="UTF8_CHAR")
        number = table.lookup(tf.strings.join([tf.where(begin > 0, "##", ""), piece]))
        found = open_ & (number != UNKNOWN)
        failed = open_ & ~found & (end - begin == 1)
        next_begin = tf.where(found, end, tf.where(failed, length, begin))
        next_end = tf.where(next_begin == begin, end - 1, next_begin + longest)
        taken = taken.write(step, tf.where(found, number, PADDING))
        return step + 1, next_begin, tf.clip_by_value(next_end, next_begin, length), known & ~failed, taken

    taken = tf.TensorArray(tf.int32, size=0, dynamic_size=True, element_shape=(None,))
    state = (0, nothing, tf.minimum(longest, length), tf.ones_like(length, tf.bool), taken)
    *_, known, taken = tf.while_loop(goes_on, try_one, state)
    numbers = tf.where(known, taken.stack(), PADDING)  # (steps, units)
    numbers = tf.concat([numbers, tf.where(known, PADDING, UNKNOWN)[None]], axis=0)
    numbers = tf.transpose(numbers)  # (units, steps + 1)
    return tf.ragged.boolean_mask(numbers, numbers != PADDING)

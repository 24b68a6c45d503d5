"""`kseq.inference.SlidingWindow` over images of any size as TensorFlow operations, for SavedModels."""

from collections.abc import Callable

import numpy as np

from kseq.data import ImageEncoder
from kseq.export.images import checked_graph
from kseq.inference.sliding_window import check_weights, window_weights


def window_graph(model, encoder: ImageEncoder, *, overlap: float, weighting: str, batch_size: int) -> Callable:
    """A function of uint8 images `(batch, height, width, channels)`, and of what to make of their logits.

    The second argument, `finish`, is a function of logits `(lines, width, classes)` to `(lines, width, …)`, by which
    each pixel counts for itself. The answer is what it makes of all lines, `(batch, height, width, …)`.

    Pixels are scaled as by `encoder`, whose size is the window, without resizing. Other channels and sizes of 0 fail
    with InvalidArgumentError. The images lie one below the other, and the windows go down, `batch_size` at a time.
    Lines that none will reach again are finished. So memory holds the images as floats, the logits of the lines that a
    batch of windows spans, what `finish` made of those above (twice when they are joined), and what the model makes of
    a batch.
    """
    import tensorflow as tf

    check_weights(overlap, weighting)
    (height, width), channels = encoder.size, encoder.channels

    @tf.function(input_signature=[tf.TensorSpec([batch_size, height, width, channels])], autograph=False)
    def answer(windows: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(windows, training=False), tf.float32)

    classes = answer.get_concrete_function().structured_outputs.shape[-1]

    def slide(images: tf.Tensor, finish: Callable) -> tf.Tensor:
        images = checked_graph(images, encoder)
        shape = tf.shape(images)
        values = tf.cast(images, tf.float32) / 255
        values = (values - np.array(encoder.mean, "float32")) / np.array(encoder.std, "float32")
        missing = tf.maximum(encoder.size - shape[1:3], 0)
        before = missing // 2
        values = tf.pad(values, [(0, 0), *tf.unstack(tf.stack([before, missing - before], axis=1)), (0, 0)])
        count, rows, columns = tf.unstack(tf.shape(values)[:3])
        row_starts, row_shares = axis_graph(rows, window_weights(height, weighting), overlap)
        column_starts, column_shares = axis_graph(columns, window_weights(width, weighting), overlap)
        down, across = tf.size(row_starts), tf.size(column_starts)
        total = count * down * across
        pixels = tf.reshape(values, (count * rows * columns, channels))

        def step(batch, top, summed, finished):
            """Add a batch of windows to `summed`, the logits of the lines from `top` on."""
            places = batch * batch_size + tf.range(batch_size)
            counted = tf.cast(places < total, tf.float32)  # the last batch is filled up with what does not count
            places = tf.minimum(places, total - 1)
            image, row, column = places // (down * across), places // across % down, places % across
            starts = image * rows + tf.gather(row_starts, row)
            ready = starts[0] - top
            done = tf.gather(summed, tf.range(ready))  # a copy: a slice would keep all of `summed`
            finished = finished.write(batch, finish(done))
            top, summed = starts[0], summed[ready:]
            summed = tf.pad(summed, [(0, starts[-1] + height - top - tf.shape(summed)[0]), (0, 0), (0, 0)])
            lines = starts[:, None] + tf.range(height)
            line_pixels = tf.gather(column_starts, column)[:, None] + tf.range(width)
            indices = lines[:, :, None] * columns + line_pixels[:, None, :]  # (windows, height, width)
            shares = tf.gather(row_shares, row)[:, :, None] * tf.gather(column_shares, column)[:, None, :]
            shares = (shares * counted[:, None, None])[..., None]
            added = answer(tf.gather(pixels, indices)) * shares
            flat = tf.reshape(summed, (-1, classes))
            flat = tf.tensor_scatter_nd_add(flat, (indices - top * columns)[..., None], added)
            return batch + 1, top, tf.reshape(flat, tf.shape(summed)), finished

        batches = (total + batch_size - 1) // batch_size
        start = tf.zeros((0, columns, classes))
        kept = finish(start)
        finished = tf.TensorArray(kept.dtype, batches + 1, infer_shape=False, element_shape=(None, *kept.shape[1:]))
        _, _, summed, finished = tf.while_loop(
            lambda batch, *_: batch < batches,
            step,
            (0, 0, start, finished),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([]), tf.TensorShape([None, None, classes]), None),
            parallel_iterations=1,  # one after the other, or several batches would be held
        )
        joined = finished.write(batches, finish(summed)).concat()
        joined = tf.reshape(joined, tf.concat([(count, rows), tf.shape(joined)[1:]], axis=0))
        top, left = tf.unstack(before)
        return joined[:, top : top + shape[1], left : left + shape[2]]

    return slide


def axis_graph(size, weights: np.ndarray, overlap: float):
    """`window_starts` and `window_shares` of `kseq.inference.sliding_window` for a `size` that is a tensor."""
    import tensorflow as tf

    window = len(weights)
    step = max(1, round(window * (1 - overlap)))
    count = (size - window + step - 1) // step + 1
    starts = tf.range(count) * (size - window) // tf.maximum(1, count - 1)
    voxels = starts[:, None] + tf.range(window)
    each = tf.broadcast_to(tf.constant(weights, tf.float64), tf.shape(voxels))
    sums = tf.math.unsorted_segment_sum(tf.reshape(each, [-1]), tf.reshape(voxels, [-1]), size)
    return starts, tf.cast(each / tf.gather(sums, voxels), tf.float32)

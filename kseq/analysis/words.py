"""Which words a classifier of texts went by: where it looks, what each word adds to the answer, as coloured text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import keras
import numpy as np
from keras import ops

from kseq.analysis.jacobian import gradient
from kseq.errors import InputError
from kseq.layers import SequencePooling

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.text import Text

_FONT_SIZE = 10
_LETTER = 0.624 * _FONT_SIZE / 72  # the width of a letter of DejaVu Sans Mono in inches, in whole pixels at 150 dpi
_SHADE = 0.6  # of the scale of colours: black letters stay legible
_LINE = 0.23  # the distance of two lines in inches


def word_attention(model: keras.Model, tokens) -> np.ndarray:
    """The weights α of the attention pooling of a text classifier, as at inference.

    A large weight says that the state at a word was read, not that the word decided: a state knows its neighbours.

    Args:
        model: functional, with a `kseq.layers.SequencePooling` in mode "attention", such as
            `kseq.models.TextClassifier`.
        tokens: `(batch, time)`, 0 for padding.

    Returns:
        `(batch, time)`, float32; each row sums to one, padding has 0.

    Raises:
        InputError: if the model has no such layer.
    """
    pools = [layer for layer in model.layers if isinstance(layer, SequencePooling) and layer.mode == "attention"]
    if not pools:
        raise InputError(f"model {model.name}: no attention pooling; build it with pooling='attention'")
    tokens = np.asarray(tokens)
    states, *_ = keras.tree.flatten(pools[0].input)  # Keras counts the mask among the inputs
    states = keras.Model(model.inputs, states)([tokens], training=False)
    mask = ops.convert_to_tensor(tokens != 0)
    return ops.convert_to_numpy(pools[0](states, mask=mask, return_attention_scores=True)[1])


def word_contributions(model: keras.Model, tokens, target: int | Sequence[int], *, steps: int = 32) -> np.ndarray:
    """What each word adds to the answer `target`: integrated gradients from a text of zero vectors.

    With e_t the vector of word t and F(e) the logit of the class c less the mean of those of the other classes,

        R_t = e_t · ∫₀¹ ∂F(α e)/∂e_t dα,    Σ_t R_t = F(e) − F(0),

    the integral by the midpoint rule. A negative R_t speaks against the class.

    Args:
        model: functional, with a layer "embedding" and logits, such as `kseq.models.TextClassifier`.
        tokens: `(batch, time)`, 0 for padding.
        target: the class c, one or one a text.
        steps: of the integral; 1 is nearly gradient times input.

    Returns:
        R, `(batch, time)`, float64; padding has 0.

    Raises:
        InputError: if the model has no layer "embedding" or fewer than two logits, a class is not there, or `steps` is
            below 1.

    Source: Sundararajan, Taly & Yan, "Axiomatic attribution for deep networks", ICML 2017 (arXiv 1703.01365),
    equations 1 and 3.
    """
    tokens = np.asarray(tokens)
    if "embedding" not in [layer.name for layer in model.layers]:
        raise InputError(f"model {model.name}: no layer 'embedding'; give a model such as kseq.models.TextClassifier")
    classes = model.outputs[0].shape[-1]
    target = np.broadcast_to(target, len(tokens))
    if classes < 2 or target.min() < 0 or target.max() >= classes:
        raise InputError(
            f"target {target.tolist()}: model {model.name} has {classes} logits; give indices of two or more"
        )
    if steps < 1:
        raise InputError(f"steps {steps}: give 1 or more")
    copy = keras.models.clone_model(model)  # a graph that is cut changes what it was cut from
    copy.set_weights(model.get_weights())
    embedding = copy.get_layer("embedding")
    rest = keras.Model([*copy.inputs, embedding.output], copy.outputs[0])  # the tokens tell the padding
    vectors = ops.convert_to_numpy(embedding(tokens)).astype("float32")  # (batch, time, dim)
    alphas = (np.arange(steps, dtype="float32") + 0.5) / steps
    points = (alphas[:, None, None, None] * vectors).reshape(-1, *vectors.shape[1:])  # (steps * batch, time, dim)
    repeated = ops.convert_to_tensor(np.tile(tokens, (steps, 1)))
    signs = np.where(np.arange(classes) == target[:, None], 1.0, -1.0 / (classes - 1)).astype("float32")
    signs = ops.convert_to_tensor(np.tile(signs, (steps, 1)))  # (steps * batch, classes)

    def difference(e):
        return ops.sum(rest([repeated, e], training=False) * signs)

    gradients = gradient(difference, points).reshape(steps, *vectors.shape).mean(axis=0)
    return np.where(tokens != 0, (vectors * gradients).sum(axis=-1), 0)


def plot_words(
    texts: Sequence[Sequence[str]],
    weights: Sequence[Sequence[float]],
    titles: Sequence[str],
    *,
    title: str = "",
    label: str = "weight",
    columns: int = 100,
) -> "Figure":
    """Draw texts with their words shaded by weight.

    Weights of one sign are shaded from white to green, of two from red, against, by white to blue, for. Each text has
    a scale of its own, up to its largest weight.

    Args:
        texts: of each text the words, or pieces of words, with a space in front where one belongs.
        weights: a number for each of them.
        titles: a line above each text.
        title: of the picture.
        label: of the scale of colours.
        columns: letters in a line.

    Raises:
        InputError: if there is no text, or the numbers of texts, titles, words or weights differ.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    _check(texts, weights, titles)
    lines = [_broken(words, columns) for words in texts]
    height = sum(len(set(line for line, _ in places)) + 1.7 for places in lines)
    figure = Figure(figsize=(columns * _LETTER + 0.4, height * _LINE + 1.0))
    width, full = figure.get_size_inches()
    axis = figure.add_axes((0.2 / width, 0.75 / full, columns * _LETTER / width, height * _LINE / full))
    axis.set(xlim=(0, columns), ylim=(height, 0))
    axis.set_axis_off()
    signed = any(min(row) < 0 for row in weights)
    scale = ScalarMappable(cmap="RdBu" if signed else "Greens")
    scale.set_clim(-1 if signed else 0, 1)
    top = 0.7
    for words, row, heading, places in zip(texts, weights, titles, lines, strict=True):
        axis.text(0, top, heading, fontsize=_FONT_SIZE, weight="bold", va="center")
        for word, share, (line, column) in zip(words, _shares(row), places, strict=True):
            seen = word if column and word.startswith(" ") else word.strip()
            start = column + (len(seen) - len(seen.lstrip()))
            y = top + 1 + line
            box = {"xy": (start, y - 0.46), "width": len(seen.strip()), "height": 0.92}
            axis.add_patch(_rectangle(box, scale.to_rgba(_SHADE * share)))
            axis.text(start, y, seen.strip(), fontsize=_FONT_SIZE, family="DejaVu Sans Mono", va="center")
        top += places[-1][0] + 2.7
    figure.suptitle(title, y=1 - 0.05 / full, va="top", fontsize=_FONT_SIZE + 2)
    bar = figure.add_axes((0.3, 0.42 / full, 0.4, 0.12 / full))
    shown = ScalarMappable(cmap=scale.cmap.resampled(256))
    shown.set_clim(*scale.get_clim())
    colours = scale.to_rgba(_SHADE * np.linspace(*scale.get_clim(), 256))  # as pale as the words
    bar.imshow(colours[None], aspect="auto", extent=(*scale.get_clim(), 0, 1))
    bar.set(yticks=[], xticks=[-1, 0, 1] if signed else [0, 1], xlabel=label)
    return figure


def coloured_words(words: Sequence[str], weights: Sequence[float]) -> "Text":
    """The words of a text for the terminal (`rich.print`), their background as in `plot_words`."""
    from matplotlib import colormaps
    from rich.text import Text

    _check([words], [weights], [""])
    signed = min(weights) < 0
    colours = colormaps["RdBu" if signed else "Greens"]
    text = Text()
    for word, share in zip(words, _shares(weights), strict=True):
        red, green, blue = (
            round(255 * part) for part in colours((_SHADE * share + 1) / 2 if signed else _SHADE * share)[:3]
        )
        text.append(" " * word.startswith(" "))
        text.append(word.lstrip(" "), style=f"black on rgb({red},{green},{blue})")
    return text


def _rectangle(box: dict, colour):
    from matplotlib.patches import Rectangle

    return Rectangle(**box, facecolor=colour, linewidth=0)


def _shares(weights: Sequence[float]) -> np.ndarray:
    weights = np.asarray(weights, dtype="float64")
    return weights / max(np.abs(weights).max(), np.finfo("float32").tiny)


def _broken(words: Sequence[str], columns: int) -> list[tuple[int, int]]:
    """The line and the first column of each word; a line begins at a word that begins with a space."""
    groups: list[list[str]] = []
    for word in words:
        if groups and not word.startswith(" "):
            groups[-1].append(word)
        else:
            groups.append([word])
    places, line, column = [], 0, 0
    for group in groups:
        length = sum(map(len, group)) - (column == 0 and group[0].startswith(" "))
        if column and column + length > columns:
            line, column = line + 1, 0
        for word in group:
            places.append((line, column))
            column += len(word) if column else len(word.lstrip(" "))
    return places


def _check(texts, weights, titles) -> None:
    if not len(texts) or not len(texts) == len(weights) == len(titles):
        raise InputError(
            f"texts, weights, titles: {len(texts)}, {len(weights)} and {len(titles)}; give the same number, 1 or more"
        )
    for number, (words, row) in enumerate(zip(texts, weights, strict=True)):
        if not len(words) or len(words) != len(row):
            raise InputError(f"text {number}: {len(words)} words, {len(row)} weights; give the same number, 1 or more")

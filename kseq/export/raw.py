"""Which raw inputs a model reads, by its card."""

from kseq.export.images import Images
from kseq.export.words import Words

KINDS = {"characters": Words, "images": Images}


def raw_input(card: dict) -> Words | Images | None:
    """What turns raw inputs into those of a model with this card; `None` if the card does not say.

    A kind of raw input has a `kind`, for people; the `shape` of one model input; `lengths`, two sizes for axes of
    model inputs that are free; `read(arguments)`, which makes raw inputs of the arguments of `kseq predict` or raises
    `InputError`; `encode(raw)`, model inputs; `signatures()`, a tensor specification and a graph that encodes what fits
    it, by name of the signature; `signature`, the one that `kseq predict` calls; and `trials()`, to verify them.
    """
    return next((kind(card[key]) for key, kind in KINDS.items() if key in card), None)

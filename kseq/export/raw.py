"""Which raw inputs a model reads, by its card."""

from kseq.export.classification import Classification
from kseq.export.continuation import Continuation
from kseq.export.images import Images
from kseq.export.segmentation import Segmentation
from kseq.export.texts import Texts
from kseq.export.translation import Translation
from kseq.export.video import Video
from kseq.export.words import Words

KINDS = {
    "characters": Words,
    "images": Images,
    "segmentation": Segmentation,
    "video": Video,
    "texts": Texts,
    "translation": Translation,
    "continuation": Continuation,
}


def raw_input(card: dict) -> Classification | Segmentation | Video | Translation | Continuation | None:
    """What turns raw inputs into those of a model with this card, and its answers into words, masks, times; or `None`.

    A kind of raw input has a `kind`, for people; optionally `lengths`, two sizes for axes of model inputs that are
    free, and `batch`, how many raw inputs `kseq predict` answers at a time; `highest(name)`, above the integers that
    the model input of this name may hold; `read(arguments)`, which makes raw inputs of the arguments of `kseq predict`
    or raises `InputError`; `check(model, path)`, which raises it if the card does not fit the model;
    `signatures(model)`, by name the specifications of the inputs and the function of each signature of a SavedModel;
    `verify(model, signatures)`, which compares those; and the answers for raw inputs, `serve(signatures, raw, given)`
    by a loaded SavedModel and `answer(model, raw, given)` by the Keras model.
    """
    return next((kind(card) for key, kind in KINDS.items() if key in card), None)

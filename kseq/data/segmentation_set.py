"""What the data sets with a class for each pixel have in common."""

from dataclasses import dataclass

from kseq.data.dataset import Arrays


@dataclass(frozen=True)
class SegmentationSet:
    """Images and the class of each of their pixels, split once and for all.

    Attributes:
        train: `(images, labels)`: images uint8 `(samples, *space, channels)`, labels uint8 `(samples, *space)`, indices
            into `class_names`.
        validation: the same, for choosing a model.
        test: the same, for the final figures.
        class_names: the name of each class index; the first is the background.
        spacing: millimetres from a pixel to the next along each axis of the space (1.0 where there is no scale).
        source: where the data come from, and their licence.
    """

    train: Arrays
    validation: Arrays
    test: Arrays
    class_names: tuple[str, ...]
    spacing: tuple[float, ...]
    source: str

"""Public image sets that other packages hold or download, as `DataSet`s."""

import numpy as np

from kseq.data.dataset import Arrays, DataSet, Entry
from kseq.errors import KseqError

SMALL_DIGITS = Entry(
    name="small_digits",
    task="image → digit",
    size="1,797 images, 8×8, 10 classes",
    source="UCI (Alpaydin & Kaynak 1998), in scikit-learn",
    licence="CC BY 4.0",
)
FASHION_MNIST = Entry(
    name="fashion_mnist",
    task="image → piece of clothing",
    size="70,000 images, 28×28, 10 classes",
    source="Xiao, Rasul & Vollgraf 2017, downloaded",
    licence="MIT",
)
CIFAR10 = Entry(
    name="cifar10",
    task="image → animal or vehicle",
    size="60,000 images, 32×32, 10 classes",
    source="Krizhevsky 2009, downloaded",
    licence="none stated",
)

CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def small_digits() -> DataSet:
    """The 1,797 digits of `sklearn.datasets.load_digits`, in a fixed, stratified split of 1,257/180/360.

    Each pixel counts the ink in 4 × 4 dots, 0 to 16; here count c is the grey value round(255 c / 16). They come from
    13 people, and who wrote which is not recorded: the same hands are in all splits. No image is there twice.

    Returns:
        A `DataSet` whose inputs are uint8 `(images, 8, 8, 1)`, 0 for paper and 255 for ink, targets the digit.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype("uint8")[..., None]
    train, test = _divide((images, digits.target), 360)
    train, validation = _divide(train, 180)
    return _dataset(train, validation, test, tuple("0123456789"), SMALL_DIGITS)


def fashion_mnist() -> DataSet:
    """Fashion-MNIST: photographs of clothing, 55,000/5,000/10,000 images.

    The test images are the published ones; validation is a fixed, stratified part of the published training images.
    Keras downloads 30 MB into its own folder when they are read for the first time.

    Source: Xiao, Rasul & Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
    2017 (arXiv 1708.07747).

    Returns:
        A `DataSet` whose inputs are uint8 `(images, 28, 28, 1)`.

    Raises:
        KseqError: if the download fails.
    """
    return _downloaded(FASHION_MNIST, CLOTHES)


def cifar10() -> DataSet:
    """CIFAR-10: colour photographs of animals and vehicles, 45,000/5,000/10,000 images.

    The test images are the published ones; validation is a fixed, stratified part of the published training images.
    Keras downloads 170 MB into its own folder when they are read for the first time.

    Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Returns:
        A `DataSet` whose inputs are uint8 `(images, 32, 32, 3)`.

    Raises:
        KseqError: if the download fails.
    """
    return _downloaded(CIFAR10, THINGS)


def _downloaded(entry: Entry, class_names: tuple[str, ...]) -> DataSet:
    import keras

    try:
        train, test = getattr(keras.datasets, entry.name).load_data()
    except Exception as error:  # whatever a broken connection or a damaged file makes Keras raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise KseqError(
            f"{entry.name}: Keras cannot download or read it ({reason}); connect to the internet, or copy "
            "~/.keras/datasets from a machine that has it; remove what is damaged there"
        ) from error
    train, test = ((_channels_last(images), targets.ravel()) for images, targets in (train, test))
    train, validation = _divide(train, 5_000)
    return _dataset(train, validation, test, class_names, entry)


def _channels_last(images: np.ndarray) -> np.ndarray:
    if images.ndim == 3:
        return images[..., None]
    return images if images.shape[-1] == 3 else np.moveaxis(images, 1, -1)  # Keras may be set to channels first


def _divide(arrays: Arrays, held_out: int) -> tuple[Arrays, Arrays]:
    """`arrays` without and with the `held_out` samples drawn from them, the classes in proportion, in their order."""
    from sklearn.model_selection import train_test_split

    inputs, targets = arrays
    parts = train_test_split(np.arange(len(targets)), test_size=held_out, stratify=targets, random_state=0)
    return tuple((inputs[part], targets[part]) for part in map(np.sort, parts))


def _dataset(train: Arrays, validation: Arrays, test: Arrays, class_names: tuple[str, ...], entry: Entry) -> DataSet:
    splits = ((inputs, targets.astype("int32")) for inputs, targets in (train, validation, test))
    return DataSet(*splits, class_names, f"{entry.source}; licence: {entry.licence}")

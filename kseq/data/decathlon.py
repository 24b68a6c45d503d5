"""Tasks of the Medical Segmentation Decathlon, from their folders."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from kseq.data.dataset import Entry
from kseq.data.medical_folders import Cases, read_nifti_pair, stem
from kseq.errors import InputError, shorten

ENTRY = Entry(
    name="decathlon",
    task="CT or MR volume → organs, tumours",
    size="10 tasks, 2,633 volumes",
    source="Antonelli et al. 2022, a folder",
    licence="CC BY-SA 4.0",
)


@dataclass(frozen=True)
class Decathlon:
    """A task of the decathlon.

    Attributes:
        train: cases with labels.
        test: cases without (they were never published).
        class_names: the name of each class index, from 0.
        channel_names: the modality of each channel of the images ("CT", "FLAIR").
        source: name, reference and licence, as the task tells them.
    """

    train: Cases
    test: Cases
    class_names: tuple[str, ...]
    channel_names: tuple[str, ...]
    source: str


def decathlon(folder: str | os.PathLike) -> Decathlon:
    """A task of the Medical Segmentation Decathlon (medicaldecathlon.com), whose volumes are read one at a time.

        folder/dataset.json             labels, modalities, and the paths of all files
        folder/imagesTr/spleen_2.nii.gz
        folder/labelsTr/spleen_2.nii.gz
        folder/imagesTs/spleen_1.nii.gz

    Source: Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications 13, 2022.

    Args:
        folder: an unpacked task, such as Task09_Spleen.

    Returns:
        A `Decathlon`.

    Raises:
        InputError: if dataset.json is missing or not as above, or names a file that is not there.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        class_names = _in_order(content["labels"], path, "labels")
        channel_names = _in_order(content.get("modality", {"0": "image"}), path, "modality")
        pairs = [(folder / pair["image"], folder / pair["label"]) for pair in content["training"]]
        tests = [folder / (one["image"] if isinstance(one, dict) else one) for one in content.get("test", [])]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give an unpacked task") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        what = f"{type(error).__name__} {shorten(str(error), 100)}"
        raise InputError(f"{path}: not as the decathlon writes it ({what}); unpack the task again") from error
    if not pairs:
        raise InputError(f"{path}: lists no training cases; unpack the task again")
    missing = [file for file in (*(file for pair in pairs for file in pair), *tests) if not file.is_file()]
    if missing:
        raise InputError(f"{missing[0]}: not there, but listed in {path} ({len(missing)} such); unpack the task again")
    source = "; ".join(str(content.get(key, "")) for key in ("name", "reference", "licence"))
    train = Cases([(stem(image), image, labels) for image, labels in pairs], class_names, read_nifti_pair)
    test = Cases([(stem(image), image, None) for image in tests], class_names, read_nifti_pair)
    return Decathlon(train, test, class_names, channel_names, source)


def _in_order(names: dict[str, str], path: Path, key: str) -> tuple[str, ...]:
    """Names by their numbers, which must be 0, 1, 2, …"""
    numbers = {int(number): str(name) for number, name in names.items()}
    if sorted(numbers) != list(range(len(numbers))) or not numbers:
        raise InputError(f"{path}: {key} {sorted(numbers)}; the numbers 0, 1, 2, … are allowed")
    return tuple(numbers[number] for number in range(len(numbers)))

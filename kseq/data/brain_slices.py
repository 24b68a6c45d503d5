"""Slices of two heads with a class for each pixel: real images, small enough to ship."""

import lzma
from importlib import resources
from typing import Literal

import numpy as np

from kseq.data.dataset import Entry
from kseq.data.segmentation_set import SegmentationSet
from kseq.errors import InputError, shorten

ENTRY = Entry(
    name="brain_slices",
    task="T1 slice → regions or tissues",
    size="74 slices, 128×96, 11 or 4 classes",
    source="Colin27 with AAL, and ICBM 2009a, embedded",
    licence="BSD 3-Clause (of the packages)",
)
SHAPE = (94, 128, 96)  # superior, posterior, left
STEP = 1.5  # mm between neighbours along each axis
CLASS_NAMES = {
    "regions": (
        "background",
        "frontal lobe",
        "parietal lobe",
        "temporal lobe",
        "occipital lobe",
        "insula",
        "limbic lobe",
        "basal ganglia",
        "thalamus",
        "cerebellum",
        "other brain",
    ),
    "tissue": ("background", "grey matter", "white matter", "other brain"),
}
SOURCES = {
    "regions": "Colin27 (Holmes et al. 1998) with AAL (Tzourio-Mazoyer et al. 2002), in MRIcron; licence: BSD 3-Clause",
    "tissue": "ICBM 2009a (Fonov et al. 2011), in nilearn; licence: BSD 3-Clause (of the package)",
}
PERIOD, FIRST = 24, 5  # slices: from slab to slab, and where the first slab of training begins
SLABS = {"train": (0, 13), "test": (15, 19), "validation": (20, 22)}  # of each period; those between are left out


def brain_slices(labels: Literal["regions", "tissue"] = "regions") -> SegmentationSet:
    """Axial T1 slices of one head, 52/8/14, with the lobes and nuclei, or the tissues, as classes.

    - "regions": one man's brain (Colin27, the mean of 27 scans of him) with the 116 regions of AAL, drawn on this
      very image, put together to 9 groups, and "other brain" for the rest inside of the skull-stripped image: deep
      white matter, ventricles, brain stem. AAL gives each gyrus the white matter next to it. Which lobe a piece of
      cortex belongs to cannot be told from the piece alone: the classes need context. The fusiform gyrus counts as
      temporal; hippocampus, amygdala, parahippocampal and cingulate gyrus as limbic; precentral gyrus, paracentral
      lobule and rolandic operculum as frontal.
    - "tissue": the mean of 152 heads, skull stripped, with the likelier of grey and white matter where that is
      probable (more than 1/3), "other brain" (mostly cerebrospinal fluid) elsewhere. The intensity almost tells it.

    Each is **one** head in 94 slices, so that no figure on them says how a model does on another person. Slices lie 1.5
    mm apart and neighbours are near copies, so they are not drawn one by one but split in slabs: every 24 slices 13 of
    training, 4 of test and 2 of validation, with 2, 1 and 2 left out between them. A test slice is at least 4.5 mm away
    from the next training slice, but still between training slabs of the same head. Every class is in each split.

    As on a radiologist's screen the front of the head is up and its left side at the right: the axes of the space point
    to posterior and left. The slices of a split go from the lowest to the highest.

    Sources: Holmes et al., "Enhancement of MR images using registration for signal averaging", 1998; Tzourio-Mazoyer et
    al., "Automated anatomical labeling of activations in SPM …", NeuroImage 15, 2002; Fonov et al., "Unbiased average
    age-appropriate atlases for pediatric studies", NeuroImage 54, 2011.

    Args:
        labels: which of the two.

    Returns:
        A `SegmentationSet` of images uint8 `(slices, 128, 96, 1)` and labels uint8 `(slices, 128, 96)`, 1.5 mm a pixel.

    Raises:
        InputError: for other labels.
    """
    if labels not in CLASS_NAMES:
        raise InputError(f'labels {shorten(labels)}: "regions" and "tissue" are allowed')
    images, classes = brain_volume(labels)
    place = (np.arange(len(images)) - FIRST) % PERIOD
    splits = {
        name: (images[rows][..., None], classes[rows])
        for name, (begin, end) in SLABS.items()
        for rows in [(place >= begin) & (place < end)]
    }
    return SegmentationSet(**splits, class_names=CLASS_NAMES[labels], spacing=(STEP, STEP), source=SOURCES[labels])


def brain_volume(labels: str) -> tuple[np.ndarray, np.ndarray]:
    """The whole head that `brain_slices` cuts: image and labels, uint8 `(94, 128, 96)`, 1.5 mm along each axis."""
    compressed = resources.files("kseq.data").joinpath("files/brain_slices.xz").read_bytes()
    volumes = np.frombuffer(lzma.decompress(compressed), "uint8").reshape(2, 2, *SHAPE)  # set, image and labels
    image, classes = volumes[list(CLASS_NAMES).index(labels)]
    return image, classes

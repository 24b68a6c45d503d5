import hashlib
from importlib import resources

import numpy as np
import pytest

from kseq import data
from kseq.data.brain_slices import FIRST, PERIOD, SLABS, STEP, brain_volume
from kseq.errors import InputError


@pytest.mark.parametrize(("labels", "digest"), [("regions", "330cc602c2aca530"), ("tissue", "3bd81646c34412a2")])
def test_the_split_never_changes_and_has_every_class(labels, digest):
    brain = data.brain_slices(labels)
    for (images, classes), count in zip((brain.train, brain.validation, brain.test), (52, 8, 14), strict=True):
        assert images.shape == (count, 128, 96, 1)
        assert classes.shape == (count, 128, 96)
        assert images.dtype == classes.dtype == np.uint8
        assert (np.bincount(classes.ravel(), minlength=len(brain.class_names)) > 300).all()
    assert brain.spacing == (STEP, STEP)
    content = b"".join(a.tobytes() for split in (brain.train, brain.validation, brain.test) for a in split)
    assert hashlib.sha256(content).hexdigest()[:16] == digest


def test_slabs_lie_apart():
    place = (np.arange(94) - FIRST) % PERIOD
    rows = {name: np.flatnonzero((place >= begin) & (place < end)) for name, (begin, end) in SLABS.items()}
    between = [np.abs(rows["train"][:, None] - rows[name]).min() for name in ("test", "validation")]
    assert between == [3, 3]  # 4.5 mm
    assert np.abs(rows["validation"][:, None] - rows["test"]).min() == 2
    image, classes = brain_volume("regions")
    for name, chosen in rows.items():
        images, labels = getattr(data.brain_slices(), name)
        np.testing.assert_array_equal(images[..., 0], image[chosen])
        np.testing.assert_array_equal(labels, classes[chosen])


def test_labels_lie_on_the_anatomy():
    """White matter is brighter than grey, and grey than fluid; lobes are where they are in a head."""
    image, tissue = brain_volume("tissue")
    means = [image[tissue == label].mean() for label in range(4)]
    assert means[2] > means[1] + 20 > means[3] + 40
    assert image[tissue == 0].mean() < 5
    _, regions = brain_volume("regions")
    names = data.brain_slices().class_names
    centre = {name: np.argwhere(regions == label).mean(axis=0) for label, name in enumerate(names)}
    assert centre["frontal lobe"][1] < centre["parietal lobe"][1] < centre["occipital lobe"][1]  # up is the front
    assert centre["cerebellum"][0] < centre["temporal lobe"][0] < centre["parietal lobe"][0]  # slices go upwards
    assert np.abs(centre["thalamus"] - centre["basal ganglia"]).max() < 20
    for name in names[1:]:  # both hemispheres
        assert abs(centre[name][2] - 47.5) < 3


def test_the_thalamus_is_as_bright_in_the_labels_as_between_grey_and_white_matter():
    """Labels that were shifted or mirrored against the image would mix in ventricles and skull."""
    image, regions = brain_volume("regions")
    assert image[regions == 8].std() < 14
    moved = np.roll(regions, 8, axis=1)
    assert image[moved == 8].std() > 1.2 * image[regions == 8].std()


def test_other_labels_are_refused():
    with pytest.raises(InputError, match='labels \'lobes\': "regions" and "tissue" are allowed'):
        data.brain_slices("lobes")


def test_the_file_is_small_and_its_licence_is_beside_it():
    files = resources.files("kseq.data").joinpath("files")
    assert len(files.joinpath("brain_slices.xz").read_bytes()) < 1_500_000
    licence = files.joinpath("brain_slices.LICENSE").read_text()
    for words in ("Chris Rorden", "Holmes", "Tzourio-Mazoyer", "Fonov", "The nilearn developers", "not at hand"):
        assert words in licence

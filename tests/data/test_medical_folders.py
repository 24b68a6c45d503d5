"""Folders of medical images: BTCV, the decathlon, Synapse, MedMNIST and pairs of pictures."""

import json
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from kseq import data
from kseq.errors import InputError
from tests.data.test_volumes import SHAPE, numbered, write_nifti


def labels(classes: int = 2) -> np.ndarray:
    return (numbered() % classes).astype("uint8")


def write_task(folder, **changes):
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    for i in (3, 1):
        write_nifti(folder / f"imagesTr/spleen_{i}.nii.gz", numbered() + i)
        write_nifti(folder / f"labelsTr/spleen_{i}.nii.gz", labels(), "LPS", origin=(12.0, -17.75, 30.0))
    write_nifti(folder / "imagesTs/spleen_2.nii.gz", numbered())
    content = {
        "name": "Spleen",
        "licence": "CC-BY-SA 4.0",
        "labels": {"0": "background", "1": "spleen"},
        "modality": {"0": "CT"},
        "training": [
            {"image": f"./imagesTr/spleen_{i}.nii.gz", "label": f"./labelsTr/spleen_{i}.nii.gz"} for i in (3, 1)
        ],
        "test": ["./imagesTs/spleen_2.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content | changes))
    return folder


def test_decathlon(tmp_path):
    task = data.decathlon(write_task(tmp_path))
    assert task.class_names == ("background", "spleen")
    assert task.channel_names == ("CT",)
    assert (len(task.train), len(task.test)) == (2, 1)
    sample = task.train[0]
    assert sample.name == "spleen_3"
    np.testing.assert_array_equal(sample.image[..., 0], numbered() + 3)
    np.testing.assert_array_equal(sample.labels, labels())
    assert sample.labels.dtype == np.uint8
    assert sample.spacing == pytest.approx((2.0, 0.75, 0.5))
    assert task.test[0].labels is None
    assert [one.name for one in task.train[1:]] == ["spleen_1"]
    assert "CC-BY-SA 4.0" in task.source
    assert repr(task.train) == "Cases(2 of 2 classes)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": {"0": "background", "2": "spleen"}}, r"labels \[0, 2\]; the numbers 0, 1, 2"),
        ({"training": []}, "lists no training cases"),
        ({"training": [{"image": "a"}]}, "not as the decathlon writes it"),
        ({"test": ["./imagesTs/gone.nii.gz"]}, r"gone.nii.gz: not there, but listed in .* \(1 such\)"),
    ],
)
def test_a_task_that_is_not_whole_is_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        data.decathlon(write_task(tmp_path, **changes))
    with pytest.raises(InputError, match="dataset.json: cannot be read"):
        data.decathlon(tmp_path / "elsewhere")


def test_labels_that_do_not_fit_name_the_file(tmp_path):
    task = data.decathlon(write_task(tmp_path))
    path = tmp_path / "labelsTr/spleen_3.nii.gz"
    write_nifti(path, labels(5))
    with pytest.raises(InputError, match=r"spleen_3.nii.gz: the labels '\[2, 3, 4\]' are not among the 2 classes"):
        task.train[0]
    write_nifti(path, labels().astype("float32") / 2)
    with pytest.raises(InputError, match=r"spleen_3.nii.gz: the labels '\[0.5\]'"):
        task.train[0]
    write_nifti(path, labels()[1:])
    with pytest.raises(InputError, match=r"spleen_3.nii.gz: labels of size \(2, 4, 5\), its image spleen_3"):
        task.train[0]
    write_nifti(path, labels(), origin=(0.0, 0.0, 0.0))
    with pytest.raises(InputError, match="spleen_3.nii.gz: lies elsewhere in space"):
        task.train[0]
    write_nifti(path, labels(), spacing=(0.5, 0.75, 2.06))  # voxels of the third slice are 0.12 mm apart
    with pytest.raises(InputError, match=r"spleen_3.nii.gz: lies elsewhere in space .*, by up to 0.12 mm"):
        task.train[0]
    write_nifti(path, labels(), spacing=(0.5, 0.75, 2.04))
    np.testing.assert_array_equal(task.train[0].labels, labels())
    assert task.train[1].labels.shape == SHAPE


def test_btcv(tmp_path):
    for name in ("img", "label"):
        (tmp_path / name).mkdir()
    for i in (2, 10):
        write_nifti(tmp_path / f"img/img{i:04}.nii.gz", numbered() - 1_000)
        write_nifti(tmp_path / f"label/label{i:04}.nii.gz", labels(14))
    cases = data.btcv(tmp_path)
    assert [case.name for case in cases] == ["0002", "0010"]
    assert cases.class_names[11] == "pancreas"
    np.testing.assert_array_equal(cases[1].labels, labels(14))
    (tmp_path / "label/label0010.nii.gz").unlink()
    with pytest.raises(InputError, match="img0010.nii.gz: no label0010.nii.gz beside it"):
        data.btcv(tmp_path)
    with pytest.raises(InputError, match="img: there is none; give the folder Training"):
        data.btcv(tmp_path / "img")


def test_synapse(tmp_path):
    with pytest.raises(InputError, match="train_npz: there is none; give the folder with"):
        data.synapse(tmp_path)
    (tmp_path / "train_npz").mkdir()
    (tmp_path / "test_vol_h5").mkdir()
    with pytest.raises(InputError, match=r"train_npz: no files \*.npz in it"):
        data.synapse(tmp_path)
    values, classes = numbered().astype("float64") / 59, labels(9).astype("float64")
    for i in range(3):
        np.savez(tmp_path / f"train_npz/case0005_slice00{i}.npz", image=values[i], label=classes[i])
    with h5py.File(tmp_path / "test_vol_h5/case0001.npy.h5", "w") as file:
        file["image"], file["label"] = values, classes
    found = data.synapse(tmp_path)
    assert [case.name for case in found.train] == [f"case0005_slice00{i}" for i in range(3)]
    np.testing.assert_allclose(found.train[2].image, values[2][..., None], rtol=1e-6)
    np.testing.assert_array_equal(found.train[2].labels, classes[2])
    volume = found.test[0]
    assert (volume.name, volume.image.shape, volume.image.dtype) == ("case0001", (*SHAPE, 1), np.float32)
    np.testing.assert_array_equal(volume.labels, classes)
    assert len(found.class_names) == 9
    (tmp_path / "train_npz/case0005_slice001.npz").write_bytes(b"PK damaged")
    with pytest.raises(InputError, match="case0005_slice001.npz: damaged"):
        found.train[1]
    (tmp_path / "test_vol_h5/case0001.npy.h5").write_bytes(b"damaged")
    with pytest.raises(InputError, match="case0001.npy.h5: damaged"):
        found.test[0]


def write_med_mnist(path, shape=(8, 8), classes=3, columns=1, **changes):
    arrays = {}
    for name, count in (("train", 6), ("val", 2), ("test", 4)):
        arrays[f"{name}_images"] = np.full((count, *shape), len(name), "uint8")
        arrays[f"{name}_labels"] = np.tile((np.arange(count) % classes)[:, None], (1, columns)).astype("uint8")
    np.savez(path, **(arrays | changes))
    return path


@pytest.mark.parametrize(
    ("shape", "expected"), [((8, 8), (8, 8, 1)), ((8, 8, 3), (8, 8, 3)), ((8, 8, 8), (8, 8, 8, 1))]
)
def test_med_mnist(tmp_path, shape, expected):
    found = data.med_mnist(write_med_mnist(tmp_path / "a.npz", shape))
    for (images, targets), count in zip((found.train, found.validation, found.test), (6, 2, 4), strict=True):
        assert images.shape == (count, *expected)
        np.testing.assert_array_equal(targets, np.arange(count) % 3)
        assert targets.dtype == np.int32
    assert found.class_names == ("0", "1", "2")
    assert found.validation[0][0].max() == 3


def test_med_mnist_files_that_do_not_fit(tmp_path):
    path = write_med_mnist(tmp_path / "a.npz")
    assert data.med_mnist(path, ("a", "b", "c")).class_names == ("a", "b", "c")
    with pytest.raises(InputError, match="class_names: 2 names for 3 classes"):
        data.med_mnist(path, ("a", "b"))
    with pytest.raises(InputError, match="a.npz: 14 labels for an image"):
        data.med_mnist(write_med_mnist(path, columns=14))
    with pytest.raises(InputError, match=r"a.npz: images \(6, 8, 8\) with labels \(5, 1\)"):
        data.med_mnist(write_med_mnist(path, train_labels=np.zeros((5, 1))))
    path.write_bytes(b"damaged")
    with pytest.raises(InputError, match="a.npz: not read as MedMNIST"):
        data.med_mnist(path)


@pytest.fixture
def folders(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    return images, masks


def test_pairs_of_every_kind(folders):
    images, masks = folders
    random = np.random.default_rng(0)
    grey, deep, colours = (random.integers(0, 255, shape).astype("uint8") for shape in ((6, 7), (6, 7), (6, 7, 3)))
    mask = random.integers(0, 3, (6, 7)).astype("uint8")
    Image.fromarray(grey).save(images / "grey.png")
    Image.fromarray(deep.astype("uint16") * 200).save(images / "deep.tif")
    Image.fromarray(colours).save(images / "colours.TIFF")
    Image.fromarray(mask).save(masks / "grey.tif")
    Image.fromarray(mask.astype("uint16")).save(masks / "deep.png")
    palette = Image.fromarray(mask, "P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(masks / "colours.png")
    write_nifti(images / "volume.nii.gz", numbered())
    write_nifti(masks / "volume.nii", labels(3))
    cases = data.image_pairs(images, masks, ("a", "b", "c"))
    found = {case.name: case for case in cases}
    assert list(found) == ["colours", "deep", "grey", "volume"]
    np.testing.assert_array_equal(found["grey"].image, grey[..., None])
    np.testing.assert_array_equal(found["deep"].image, deep.astype(int)[..., None] * 200)
    np.testing.assert_array_equal(found["colours"].image, colours)
    for name in ("grey", "deep", "colours"):
        np.testing.assert_array_equal(found[name].labels, mask)
        assert found[name].spacing == (1.0, 1.0)
    np.testing.assert_array_equal(found["volume"].labels, labels(3))
    assert found["volume"].spacing == pytest.approx((2.0, 0.75, 0.5))


def test_pairs_that_do_not_fit_name_the_file(folders):
    images, masks = folders
    with pytest.raises(InputError, match="images: no files"):
        data.image_pairs(images, masks, ("a", "b"))
    for folder in folders:
        Image.fromarray(np.zeros((6, 7), "uint8")).save(folder / "a.png")
    cases = data.image_pairs(images, masks, ("a", "b"))
    Image.fromarray(np.zeros((7, 6), "uint8")).save(masks / "a.png")
    with pytest.raises(InputError, match=r"a.png: labels of size \(7, 6\), its image a.png is of size \(6, 7\)"):
        cases[0]
    Image.fromarray(np.full((6, 7), 255, "uint8")).save(masks / "a.png")
    with pytest.raises(InputError, match=r"a.png: the labels '\[255\]' are not among the 2 classes, 0 to 1"):
        cases[0]
    Image.fromarray(np.zeros((6, 7, 3), "uint8")).save(masks / "a.png")
    with pytest.raises(InputError, match="a.png: has colours"):
        cases[0]
    (masks / "a.png").write_bytes((images / "a.png").read_bytes()[:-30])
    with pytest.raises(InputError, match="a.png: no PNG or TIFF image, or damaged"):
        cases[0]
    page = Image.fromarray(np.zeros((6, 7), "uint8"))
    page.save(images / "b.tif", save_all=True, append_images=[page])
    with pytest.raises(InputError, match=r"b.tif: nothing with this name in .*masks \(1 such\)"):
        data.image_pairs(images, masks, ("a", "b"))
    write_nifti(masks / "b.nii", labels())
    with pytest.raises(InputError, match="b.nii: its image is b.tif; give both"):
        data.image_pairs(images, masks, ("a", "b"))[1]
    (masks / "b.nii").unlink()
    page.save(masks / "b.tif")
    with pytest.raises(InputError, match="b.tif: 2 pages"):
        data.image_pairs(images, masks, ("a", "b"))[1]
    page.save(masks / "b.png")
    with pytest.raises(InputError, match="b.tif: b.png has the same name"):
        data.image_pairs(images, masks, ("a", "b"))


def write_nuclei(image=None, mask=None) -> dict[str, bytes]:
    import io

    files = {}
    mask = np.zeros((512, 512), "uint16") if mask is None else mask
    image = mask if image is None else image
    for name, values in (("img2d.tif", image), ("mask2d.tif", mask)):
        content = io.BytesIO()
        Image.fromarray(values).save(content, "TIFF")
        files[f"stardist/data/images/{name}"] = content.getvalue()
    return files


def test_nuclei_from_a_wheel_and_from_a_folder(tmp_path, monkeypatch):
    mask = np.random.default_rng(0).integers(0, 3, (512, 512)).astype("uint16")
    files = write_nuclei(40 * mask, mask)
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(content)
    for path in (tmp_path / "a.whl", tmp_path):
        found = data.nuclei(path)
        assert [len(images) for images, _ in (found.train, found.validation, found.test)] == [8, 4, 4]
        np.testing.assert_array_equal(found.train[0][5, ..., 0], 40 * mask[128:256, 128:256])
        np.testing.assert_array_equal(found.test[1][3], mask[384:, 384:] > 0)
    asked = []
    module = __import__("importlib").import_module("kseq.data.nuclei")
    monkeypatch.setattr(module, "download", lambda url, sha256: asked.append((url, sha256)) or tmp_path / "a.whl")
    np.testing.assert_array_equal(data.nuclei().train[0], found.train[0])
    assert asked[0][0].endswith(".whl")
    assert len(asked[0][1]) == 64


def test_no_nuclei(tmp_path):
    (tmp_path / "b.whl").write_bytes(b"no archive")
    for path in (tmp_path, tmp_path / "b.whl", tmp_path / "c.whl"):
        with pytest.raises(InputError, match="no stardist/data/images/img2d.tif in it"):
            data.nuclei(path)
    with zipfile.ZipFile(tmp_path / "d.whl", "w") as archive:
        for name, content in write_nuclei(np.zeros((64, 64), "uint16")).items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=r"image \(64, 64\), mask \(512, 512\)"):
        data.nuclei(tmp_path / "d.whl")

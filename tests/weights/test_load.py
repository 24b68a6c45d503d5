"""Every file format, and every way in which a file or an argument can be wrong."""

import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.weights import loading
from kseq.weights.checkpoint import read
from tests.weights.test_torch_recurrent import built, checkpoint

TENSORS = checkpoint("GRU")


def is_loaded(layer) -> bool:
    return np.array_equal(layer.get_weights()[1][:, 8:], TENSORS["weight_hh_l0"][8:].T)


def write_npz(path, tensors):
    np.savez(path, **tensors)


def write_torch(path, tensors):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, path)


def write_nested(path, tensors):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(array) for name, array in tensors.items()}
    torch.save({"epoch": 3, ("model" if path.suffix == ".pt" else "state_dict"): tensors}, path)


def write_safetensors(path, tensors):
    pytest.importorskip("safetensors.numpy").save_file(tensors, path)


FILES = {
    "a.npz": write_npz,
    "a.pth": write_torch,
    "a.pt": write_torch,
    "nested.pth": write_nested,
    "nested.pt": write_nested,
    "a.safetensors": write_safetensors,
}


@pytest.mark.parametrize("name", FILES)
def test_every_format(tmp_path, name):
    FILES[name](tmp_path / name, TENSORS)
    layer = built(kseq.layers.GRU(4))
    kseq.weights.load(layer, tmp_path / name)
    assert is_loaded(layer)
    again = built(keras.layers.GRU(4))
    kseq.weights.load(again, str(tmp_path / name), layout="torch_recurrent")
    assert is_loaded(again)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.98])
def test_truncated_files(tmp_path, name, share):
    path = tmp_path / name
    FILES[name](path, TENSORS)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"(cannot be read|refused)[^\n]*; save") as error:
        kseq.weights.load(built(keras.layers.GRU(4)), path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.npz", "a.pth", "a.safetensors"])
def test_files_that_are_something_else(tmp_path, name):
    if name == "a.safetensors":
        pytest.importorskip("safetensors")
    (tmp_path / name).write_bytes(b"<html>Not found</html>" * 100)
    with pytest.raises(InputError, match="a\\.\\w+: ") as error:
        kseq.weights.load(built(keras.layers.GRU(4)), tmp_path / name)
    assert "\n" not in str(error.value)


class Code:
    """Makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["a.pth", "a.npz"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, name):
    if name == "a.pth":
        pytest.importorskip("torch").save({**TENSORS, "code": Code(tmp_path / "ran")}, tmp_path / name)
    else:
        np.savez(tmp_path / name, **TENSORS, code=np.array([Code(tmp_path / "ran")], dtype=object))
    with pytest.raises(InputError, match="could run code.*refused; save"):
        kseq.weights.load(built(keras.layers.GRU(4)), tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_plain_pickle_is_refused_and_not_run(tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"code": Code(tmp_path / "ran")}, protocol=2))
    with pytest.raises(InputError, match="refused"):
        kseq.weights.load(built(keras.layers.GRU(4)), tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_half_precision_is_read_exactly():
    torch = pytest.importorskip("torch")
    expected = np.array([0.5, -1.25, 3.0], "float32")
    halves = [torch.tensor(expected, dtype=torch.bfloat16, requires_grad=True), expected.astype("float16")]
    for half in halves:
        _, tensors = read({"x": half})
        assert tensors["x"].dtype == "float32"
        np.testing.assert_array_equal(tensors["x"], expected)


def test_half_precision_in_a_file(tmp_path):
    pytest.importorskip("safetensors")
    import ml_dtypes

    expected = np.array([0.5, -1.25, 3.0], "float32")
    for dtype in (ml_dtypes.bfloat16, "float16"):
        write_safetensors(tmp_path / "a.safetensors", {"x": expected.astype(dtype)})
        _, tensors = read(tmp_path / "a.safetensors")
        assert tensors["x"].dtype == "float32"
        np.testing.assert_array_equal(tensors["x"], expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("missing.pth", "missing.pth: no such file; give a .pth, .pt, .safetensors, .npz file"),
        ("weights.h5", "weights.h5: give a .pth"),
        (17, "checkpoint 17: give a path or a dict"),
        ({}, "holds no tensors"),
        ({"epoch": "last"}, "epoch is no tensor"),
        ({"state_dict": {}}, "holds no tensors"),
        (
            {"conv.weight": np.zeros(3)},
            r"its 1 tensors \(conv.weight\) have no known layout; known are .*vit_timm, .*torch_recurrent",
        ),
    ],
)
def test_bad_checkpoints(given, message):
    with pytest.raises(InputError, match=message):
        kseq.weights.load(built(keras.layers.GRU(4)), given)


def test_bad_arguments():
    with pytest.raises(
        InputError, match="layout 'timm': unknown; give .*vit_timm, .*torch_recurrent, a Layout, or None"
    ):
        kseq.weights.load(built(keras.layers.GRU(4)), TENSORS, layout="timm")
    with pytest.raises(InputError, match="model str: give a keras.Model or a layer"):
        kseq.weights.load("gru", TENSORS)


@pytest.mark.parametrize(("package", "name"), [("torch", "a.pth"), ("safetensors", "a.safetensors")])
def test_a_reader_that_is_not_installed(tmp_path, monkeypatch, package, name):
    (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, package, None)  # import then fails
    with pytest.raises(InputError, match=rf"needs \w+; pip install 'kseq\[{package}\]'"):
        read(tmp_path / name)


def test_importing_it_loads_neither_torch_nor_safetensors():
    code = "import keras, sys; before = set(sys.modules); import kseq.weights; print(*set(sys.modules) - before)"
    new = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "kseq.weights.loading" in new
    assert not {"torch", "safetensors"} & set(new)


def test_a_layout_of_another_library_is_one_class(monkeypatch):
    """What the interface promises to those who add one: names, shapes, a conversion, and tensors of no use."""

    class Transposed(kseq.weights.Layout):
        name = "transposed"

        def recognises(self, names):
            return "head.w" in names

        def rules(self, model, tensors):
            return [kseq.weights.Rule(model.kernel, {"head.w": (2, 3)}, lambda w: w.T)]

        def ignores(self, name, skip=()):
            return name.endswith("counter")

    monkeypatch.setattr(loading, "LAYOUTS", (*loading.LAYOUTS, Transposed()))
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    weight = np.arange(6, dtype="float32").reshape(2, 3)
    kseq.weights.load(layer, {"head.w": weight, "counter": np.array(7)})
    np.testing.assert_array_equal(layer.get_weights()[0], weight.T)
    with pytest.raises(InputError, match="extra: other"):
        kseq.weights.load(layer, {"head.w": weight, "other": np.array(7)})
    kseq.weights.load(layer, {"head.w": -weight}, layout=Transposed())
    np.testing.assert_array_equal(layer.get_weights()[0], -weight.T)


def test_skipped_layers_keep_their_weights_and_their_tensors_are_not_missed():
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            kseq.layers.GRU(4, return_sequences=True, name="first"),
            keras.Sequential([kseq.layers.GRU(4, name="second")], name="inner"),
        ]
    )
    tensors = checkpoint("GRU", levels=2)
    before = [weight.copy() for weight in model.get_layer("inner").get_weights()]
    kseq.weights.load(model, tensors | {"bias_ih_l1": np.zeros(7)}, skip="second")
    np.testing.assert_array_equal(model.layers[0].get_weights()[1][:, 8:], tensors["weight_hh_l0"][8:].T)
    kseq.weights.load(model, {name: array for name, array in tensors.items() if name.endswith("0")}, skip=("inner",))
    for got, expected in zip(model.get_layer("inner").get_weights(), before, strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(InputError, match="skip 'third': no layer of .*; its layers are first, inner, second"):
        kseq.weights.load(model, tensors, skip=("first", "third"))
    with pytest.raises(InputError, match="extra: weight_ih_l2"):
        kseq.weights.load(model, tensors | {"weight_ih_l2": np.zeros((12, 4))}, skip="second")


def test_nothing_is_assigned_if_a_conversion_fails():
    """What only the values can tell, such as positions that are no square, is told before the first assignment."""

    class Failing(kseq.weights.Layout):
        def rules(self, model, tensors):
            def fail(_):
                raise InputError("no square")

            return [
                kseq.weights.Rule(model.kernel, {"w": (3, 2)}, lambda w: w),
                kseq.weights.Rule(model.bias, {"b": (2,)}, fail),
            ]

    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    before = layer.get_weights()[0].copy()
    with pytest.raises(InputError, match="no square"):
        kseq.weights.load(layer, {"w": np.ones((3, 2)), "b": np.ones(2)}, layout=Failing())
    np.testing.assert_array_equal(layer.get_weights()[0], before)

import json
import zipfile

import keras
import numpy as np
import pytest

from kseq import saving
from kseq.errors import InputError
from tests.conftest import torch_only


def test_round_trip_with_card_and_optimizer(tagger, card, tmp_path):
    model, inputs, _ = tagger
    path = tmp_path / "model.keras"
    saving.save(model, path, card)
    again = saving.load(path)
    assert saving.read_card(path) == card
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))
    assert [v.shape for v in again.optimizer.variables] == [v.shape for v in model.optimizer.variables]
    assert int(again.optimizer.iterations) == 1


def test_plain_keras_reads_the_file(tagger, card, tmp_path):
    model, inputs, _ = tagger
    saving.save(model, tmp_path / "model.keras", card)
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_a_file_without_a_card(tagger, tmp_path):
    saving.save(tagger[0], tmp_path / "model.keras")
    assert saving.read_card(tmp_path / "model.keras") == {}


def test_a_failed_write_leaves_the_earlier_file(tagger, tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    saving.save(tagger[0], path, {"first": 1})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        saving.save(tagger[0], path, {"cannot be JSON": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@torch_only
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_truncated_files(tagger, tmp_path, keep):
    path = tmp_path / "model.keras"
    saving.save(tagger[0], path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(InputError, match="not a complete .keras file"):
        saving.load(path)


def test_damaged_content(tagger, tmp_path):
    path = tmp_path / "model.keras"
    saving.save(tagger[0], path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        saving.load(path)


def test_other_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        saving.load(tmp_path / "missing.keras")
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(InputError, match="config.json is damaged or missing"):
        saving.load(tmp_path / "other.keras")


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
    flag = tmp_path / "has_run"
    entry = keras.Input((2,))
    source = f"lambda x: [open({str(flag)!r}, 'w').close(), x][1]"
    model = keras.Model(entry, keras.layers.Lambda(eval(source))(entry))
    flag.unlink()  # made while the model was built
    saving.save(model, tmp_path / "model.keras")
    with pytest.raises(InputError, match="carries code of its own"):
        saving.load(tmp_path / "model.keras")
    assert not flag.exists()


def test_an_unknown_layer_is_one_line(tmp_path, tagger):
    path = tmp_path / "model.keras"
    saving.save(tagger[0], path)
    changed = tmp_path / "changed.keras"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                text = json.dumps(json.loads(content)).replace('"Embedding"', '"Unheard"')
                content = text.encode()
            new.writestr(name, content)
    with pytest.raises(InputError, match="cannot be read as a Keras model") as caught:
        saving.load(changed)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model(tagger, tmp_path):
    from kseq.models import CharTagger

    saving.save(tagger[0], tmp_path / "model.keras")
    with pytest.raises(InputError, match="does not fit the model"):
        saving.load_weights(CharTagger(27, 4, units=9, embedding=6), tmp_path / "model.keras")

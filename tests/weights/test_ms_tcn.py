"""The temporal convolutional networks of MS-TCN and TeCNO: what the reference computes, from its weights."""

import keras
import numpy as np
import pytest

import kseq
from kseq.errors import InputError
from kseq.models.multi_stage_tcn import MultiStageTCN
from kseq.weights.ms_tcn import MsTcn
from tests.numpy_initializers import numpy_initializers
from tests.weights.golden import close, read

FILES = {"tecno_causal": {"layers": 4, "causal": True}, "mstcn_acausal": {"layers": 3, "causal": False}}


@pytest.fixture(autouse=True, scope="module")
def fast_building():
    with numpy_initializers():
        yield


def small(file="tecno_causal", **options):
    return MultiStageTCN(12, 7, **{"stages": 2, "filters": 8} | FILES[file] | options)


@pytest.mark.parametrize("file", FILES)
def test_golden(file):
    state, arrays, _ = read(file)
    model = small(file, deep_supervision=True)
    kseq.weights.load(model, state, MsTcn())
    names = ("stage_0_projection", "stage_0_layer_0", "stage_0_logits")
    outputs = model.output | {name: model.get_layer(name).output for name in names}
    outputs = keras.Model(model.input, outputs).predict(arrays["input"].swapaxes(1, 2), verbose=0)
    outputs = {name: x.swapaxes(1, 2) for name, x in outputs.items()}  # (batch, channels, time)
    close(outputs["stage_0_projection"], arrays["stage/stage1_conv_1x1"])
    close(outputs["stage_0_layer_0"], arrays["stage/stage1_layer_0"])
    close(outputs["stage_0_logits"], arrays["stage/stage1"])
    close(outputs["auxiliary_0"], arrays["output"][0])
    close(outputs["logits"], arrays["output"][1])


def test_prefixes_and_the_names_of_ms_tcn():
    state, _, _ = read("tecno_causal")
    models = [small(), small(), small()]
    kseq.weights.load(models[0], state, MsTcn())
    kseq.weights.load(models[1], {"state_dict": {f"model.{name}": x for name, x in state.items()}}, MsTcn())
    kseq.weights.load(
        models[2], {name.replace("conv_out_classes", "conv_out"): x for name, x in state.items()}, MsTcn()
    )
    for model in models[1:]:
        for got, expected in zip(model.get_weights(), models[0].get_weights(), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_every_parameter_comes_from_the_checkpoint():
    model, (state, _, _) = small(), read("tecno_causal")
    rules = MsTcn().rules(model, state)
    assert {id(rule.variable) for rule in rules} == {id(v) for v in model.trainable_variables}
    assert {name for rule in rules for name in rule.sources} == state.keys()


def test_it_recognises_its_own_alone():
    assert MsTcn().recognises({"model.stage1.conv_out_classes.weight"})
    assert MsTcn().recognises({"stage1.conv_out.weight"})
    assert not MsTcn().recognises({"stage1.conv_out.bias", "stages.0.conv_out.weight", "layer1.0.conv1.weight"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(layers=5), r"missing: stage1\.layers\.4\.conv_dilated"),
        (lambda: small(stages=1), r"extra: stages\.0\.conv_1x1"),
        (lambda: small(filters=6), r"wrong shape: stage1\.conv_1x1\.weight \(8, 12, 1\) where \(6, 12, 1\)"),
        (lambda: kseq.models.CharTagger(27, 4, units=2), "no kseq.models.MultiStageTCN"),
    ],
)
def test_what_cannot_correspond(make, message):
    with pytest.raises(InputError, match=message):
        kseq.weights.load(make(), read("tecno_causal")[0], MsTcn())

import pytest

from kseq import models
from kseq.errors import InputError
from kseq.models.registry import variants
from tests.conftest import torch_only

# Counted without their weights by the tests of the models.
LARGE = {name for name, variant in variants().items() if variant.parameters > 10_000_000}


@torch_only
@pytest.mark.parametrize("name", sorted(set(models.list()) - LARGE))
def test_parameter_counts(name):
    assert models.create(name).count_params() == variants()[name].parameters


def test_elman_count_is_the_formula():
    # U: 26×128, W: 128×128, b: 128, V: 128×4, c: 4
    assert variants()["char_tagger_elman"].parameters == 26 * 128 + 128 * 128 + 128 + 128 * 4 + 4


def test_arguments_override():
    assert models.create("char_tagger", num_classes=9).output_shape == (None, 9)


def test_unknown_name():
    with pytest.raises(InputError, match="name 'vit': no such model; choose one of .*char_tagger"):
        models.create("vit")

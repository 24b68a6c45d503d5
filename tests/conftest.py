import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# JAX compiles each shape once a machine, not once a test run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".cache", "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Tests compile many tiny graphs and run each a few times: without optimisation XLA takes half the time over them.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import pytest

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="does the same on every backend (it starts processes of its own), so it runs once",
)

torch_only = pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="does the same on every backend, so it runs once, where nothing is traced or compiled",
)


def thinned(cases):
    """All cases of a grid on PyTorch; on the others, where each case is traced or compiled, every third of them."""
    backend = keras.backend.backend()
    cases = list(cases)
    return cases if backend == "torch" else cases[("tensorflow", "jax").index(backend) :: 3]


REFUSALS = ("test_bad_", "test_what_cannot_correspond")  # what they give is refused before a backend computes
BY_THEMSELVES = ("test_every_app.py", "test_readme.py")  # files of long tests that share nothing


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in its own hook
def pytest_collection_modifyitems(items):
    """A file of tests goes to one process, for what its tests share; these are the groups of `--dist loadgroup`."""
    for item in items:
        if item.name.startswith(REFUSALS):
            item.add_marker(torch_only)
        item.add_marker(pytest.mark.xdist_group(item.name if item.path.name in BY_THEMSELVES else str(item.path)))


@pytest.fixture(autouse=True)
def _same_start():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(autouse=True, scope="module")
def _forget_what_jax_compiled():
    """It keeps all it ever compiled: 5 GB a process after half of the tests."""
    yield
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()


@pytest.fixture
def tagger():
    """A small compiled tagger that has been trained for a step, its inputs and its targets."""
    import numpy as np

    from kseq.models import CharTagger

    model = CharTagger(27, 4, units=8, embedding=6)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    random = np.random.default_rng(0)
    inputs = random.integers(1, 27, (16, 15)).astype("int32")
    inputs[:8, 6:] = 0
    targets = random.integers(0, 4, 16).astype("int32")
    model.fit(inputs, targets, verbose=0)
    return model, inputs, targets


@pytest.fixture
def card():
    return {
        "task": "word classification",
        "characters": {"characters": "abcdefghijklmnopqrstuvwxyz", "max_length": 15},
        "class_names": ["noun", "verb", "adjective", "adverb"],
    }

import os
import zlib

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# JAX compiles each shape once a machine, not once a test run.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(os.path.dirname(__file__), "..", ".cache", "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Tests compile many tiny graphs and run each a few times: without optimisation XLA takes half the time over them.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import numpy as np
import pytest

WHOLE = bool(os.environ.get("KSEQ_WHOLE_SUITE"))  # set, every test runs on every backend: before a release

tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="does the same on every backend (it starts processes of its own), so it runs once",
)

torch_only = pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="does the same on every backend, so it runs once, where nothing is traced or compiled",
)


whole_only = pytest.mark.skipif(
    not WHOLE or keras.backend.backend() != "tensorflow",
    reason="starts backends for minutes, so it runs once and with KSEQ_WHOLE_SUITE=1 alone",
)


def thinned(cases):
    """All cases of a grid on PyTorch; on the others, where each case is traced or compiled, every third of them."""
    backend = keras.backend.backend()
    cases = list(cases)
    return cases if WHOLE or backend == "torch" else cases[("tensorflow", "jax").index(backend) :: 3]


REFUSALS = ("test_bad_", "test_what_cannot_correspond")  # what they give is refused before a backend computes
BY_THEMSELVES = ("test_every_app.py", "test_readme.py")  # files of long tests that share nothing
EVERYWHERE = {"backend", "compare"}  # folders of what is written for, or asks, each backend


def has_its_turn(item) -> bool:
    """Whether a test runs on this backend: all run on PyTorch, and on TensorFlow and JAX, which trace, by turns.

    The conformance of each layer is tested on all three, and what is written for a backend or asks for one. The
    conformance of each model and what its weights must give is tested on one more than PyTorch, and of all else a
    quarter is on TensorFlow and a quarter on JAX.
    """
    backend = keras.backend.backend()
    if WHOLE or backend == "torch" or item.get_closest_marker("skipif"):
        return True
    path = item.nodeid.removeprefix("tests/")
    folder, conforms = path.split("/")[0], item.name.startswith("test_conformance")
    if folder in EVERYWHERE or (folder == "layers" and conforms):
        return True
    turns = 2 if conforms or folder == "weights" else 4
    return zlib.crc32(path.encode()) % turns == ("tensorflow", "jax").index(backend)


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in its own hook
def pytest_collection_modifyitems(items):
    """A file of tests goes to one process, for what its tests share; these are the groups of `--dist loadgroup`."""
    for item in items:
        if item.name.startswith(REFUSALS):
            item.add_marker(torch_only)
        elif not has_its_turn(item):
            item.add_marker(pytest.mark.skip(reason="runs on PyTorch, and on another backend by turns"))
        item.add_marker(pytest.mark.xdist_group(item.name if item.path.name in BY_THEMSELVES else str(item.path)))


def restart(module, seed: int) -> None:
    """Let the generator that a file of tests draws from start anew: what is drawn depends on no other test."""
    for name in ("random", "RANDOM"):
        generator = getattr(module, name, None)
        if isinstance(generator, np.random.Generator):
            generator.bit_generator.state = np.random.default_rng(seed).bit_generator.state


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    restart(getattr(item, "module", None), 0)  # of fixtures that serve a whole file


@pytest.fixture(autouse=True)
def _same_start(request):
    keras.utils.set_random_seed(0)
    restart(request.module, zlib.crc32(request.node.name.encode()))
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

from tests.conftest import torch_only


def pytest_collection_modifyitems(items):
    """Data are NumPy's on every backend, but for the batches, which are Keras's."""
    for item in items:
        everywhere = item.path.name == "test_batches.py" or item.get_closest_marker("skipif")
        if "tests/data/" in item.path.as_posix() and not everywhere:
            item.add_marker(torch_only)

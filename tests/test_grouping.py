import pytest


def test_a_file_of_tests_goes_to_one_process(request):
    """xdist tells the groups of `--dist loadgroup` by the ends of names, which pytest 9 does not let it change."""
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("there are no groups without -n and --dist loadgroup")
    assert request.node.nodeid.endswith(f"@{request.node.path}")

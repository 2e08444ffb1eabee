"""The names that `import tiekd` gives."""

import subprocess
import sys

import pytest

import tiekd


@pytest.mark.parametrize("name", tiekd.__all__)
def test_a_public_name_is_there(name):
    assert getattr(tiekd, name) is not None
    assert name in dir(tiekd)


def test_the_package_distill_is_the_function():
    from tiekd.distill import distill, loop

    assert distill is loop.distill
    assert callable(tiekd.distill)
    with pytest.raises(TypeError, match=r"distill\(\) got an unexpected keyword argument 'nothing'"):
        tiekd.distill(nothing=1)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = tiekd.nothing


def test_importing_the_package_imports_no_pytorch():
    script = "import sys, tiekd; tiekd.__version__; tiekd.RunConfig; print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240)
    assert done.stdout == "set()\n"

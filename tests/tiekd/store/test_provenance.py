"""What a run records about the code and the packages it ran with."""

import hashlib
from importlib.metadata import version

from tiekd.store.provenance import LOCK, lock_state


def test_a_checkout_names_its_lock():
    assert lock_state()[LOCK.name] == hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]


def test_packages_that_differ_from_the_lock_are_named(tmp_path):
    lock = tmp_path / "constraints.txt"
    equal = [f"{name}=={version(name)}" for name in ("torch", "PyYAML", "typing_extensions", "jinja2")]
    lock.write_text("\n".join(["# a comment", *equal, "numpy==0.1", "Huggingface.Hub==0.1", "not-installed==1.0"]))
    digest, *different = lock_state(lock).items()
    assert digest == ("constraints.txt", hashlib.sha256(lock.read_bytes()).hexdigest()[:16])
    assert different == [("numpy", version("numpy")), ("huggingface-hub", version("huggingface_hub"))]


def test_a_wheel_has_no_lock(tmp_path):
    assert lock_state(tmp_path / "constraints.txt") == {}

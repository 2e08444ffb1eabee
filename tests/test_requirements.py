"""setup.cfg and the lock, constraints.txt: they agree, and every supported Python can install them."""

import configparser
import re
from importlib.metadata import distributions

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.lowest import SETUP, lowest_versions
from support.paths import ROOT

from ablations.execution.ray_private import CHECKED_WITH

LOCK = (ROOT / "constraints.txt").read_text()
LOCKED = dict(re.findall(r"^([\w.-]+)==(\S+)$", LOCK, re.MULTILINE))


def requirements() -> dict[str, Requirement]:
    """Every package that setup.cfg names, for users and for developers."""
    setup = configparser.RawConfigParser()
    setup.read(SETUP)
    sections = [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    lines = [line for section in sections for line in section.splitlines() if line and not line.startswith("tiekd[")]
    return {canonicalize_name(found.name): found for found in map(Requirement, lines)}


def test_the_lock_holds_versions_and_nothing_else():
    lines = [line for line in LOCK.splitlines() if not line.startswith("#")]
    assert len(lines) == len(LOCKED) > 100


def test_the_lock_has_an_allowed_version_of_each_requirement():
    locked = {canonicalize_name(name): version for name, version in LOCKED.items()}
    wrong = {name for name, found in requirements().items() if not found.specifier.contains(locked.get(name, "0"))}
    assert wrong == set()


def test_every_supported_python_can_install_the_lock():
    """Debian 12 has Python 3.11.2, and pip refuses a pinned version that needs a later one."""
    locked = [found for found in distributions() if LOCKED.get(found.metadata["Name"]) == found.version]
    wrong = {
        found.metadata["Name"]: python
        for found in locked
        for python in ("3.11.0", "3.12.0", "3.13.0")
        if not Requirement(f"python{found.metadata.json.get('requires_python', '')}").specifier.contains(python)
    }
    assert wrong == {}


def test_each_package_that_users_need_has_a_lowest_version_that_is_allowed():
    """`make test-lowest` runs the tests with these."""
    lowest = {canonicalize_name(name): version for name, version in lowest_versions().items()}
    assert lowest.keys() >= {"torch", "ray", "transformers", "av"}
    assert all(requirements()[name].specifier.contains(version) for name, version in lowest.items())


def test_the_allowed_versions_of_ray_are_those_that_were_checked():
    major, minor = CHECKED_WITH[-1].split(".")
    assert str(requirements()["ray"].specifier) == f"<{major}.{int(minor) + 1},>={CHECKED_WITH[0]}"

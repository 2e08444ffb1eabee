"""Print pip constraints for the lowest version of every requirement in setup.cfg, for `make test-lowest`."""

import configparser
import re
from pathlib import Path

SETUP = Path(__file__).parents[2] / "setup.cfg"
TOOLS = ("test", "dev")  # extras that no user of the package installs


def lowest_versions() -> dict[str, str]:
    """Lowest allowed version of each package that the package or one of its user extras requires."""
    setup = configparser.RawConfigParser()
    setup.read(SETUP)
    extras = (lines for extra, lines in setup["options.extras_require"].items() if extra not in TOOLS)
    lines = "\n".join([setup["options"]["install_requires"], *extras])
    return dict(re.findall(r"^([\w-]+)(?:\[.*\])?>=([\w.]+)", lines, re.MULTILINE))


if __name__ == "__main__":
    print(*(f"{name}=={version}" for name, version in lowest_versions().items()), sep="\n")

"""Under which terms a network may be passed on, as far as its data tells."""

from typing import NamedTuple

from tiekd.config import RunConfig

CODE = "Apache-2.0"


class Licence(NamedTuple):
    name: str  # an identifier of the Hugging Face hub
    text: str


def licence_of(config: RunConfig) -> Licence:
    """The terms of what a network was trained on; whoever publishes it has to look at its teacher's, too."""
    match config.data.dataset:
        case "kitti":
            return Licence("cc-by-nc-sa-3.0", "CC BY-NC-SA 3.0, that of the KITTI images it was trained on")
        case "nyu":
            return Licence("other", "not stated: NYU Depth v2, on which it was trained, names no licence for models")
    return Licence("apache-2.0", f"{CODE}, as the code that rendered what it was trained on")

"""How the released code's checkpoints name the tensors of a network that is built here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class PublishedKeys:
    """The way from a released state dict to ours. A key of theirs that is neither named nor unused is unknown.

    A layout puts the entries of one of their tensors into our order; the shape stays.
    """

    names: Mapping[str, str]  # our key: theirs
    unused: frozenset[str] = frozenset()  # theirs that the released model carries but never uses, or computes anew
    layouts: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)  # by our key

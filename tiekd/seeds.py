"""Seeds that depend on what is drawn for, and on nothing that happened before."""

import numpy as np


def derive_seed(*entropy: int) -> int:
    """A 64-bit seed for e.g. (seed, epoch, index)."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])

import platform
import subprocess
import sys

import pytest

PASSES = """
import resource
import numpy as np
from tiekd.config import build
from tiekd.data.cache.in_memory import remembered

data = {"dataset": "synthetic-outdoor", "frame_size": [64, 96], "train_crop": [64, 96]}
config = build({"data": data, "loss": {"name": "si", "target": "ground_truth"}})

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(2**20, np.uint8) for _ in range(8)]
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
returned = faults()
remembered(config)
faults()
print(returned, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_a_process_that_opens_its_inputs_uses_freed_memory_again_without_asking_the_system():
    done = subprocess.run([sys.executable, "-c", PASSES], capture_output=True, text=True, check=True)
    returned, kept = map(int, done.stdout.split())
    page = 4096
    assert returned > 7 * 2**20 / page  # or the C library does so by itself, and the module may go
    assert kept < 100

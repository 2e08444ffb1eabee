import pytest

from ablations.monitor.failure_groups import cause_pattern, group_failures, short_cause

TASK = """ray::ImplicitFunc.train() (pid=4711, ip=10.0.0.7, actor_id=5f3a, repr=compute_cell)
  File "/opt/app/ray/tune/trainable/trainable.py", line 331, in train
    raise skipped from exception_cause(skipped)
ValueError: the file is no image: RuntimeError
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"""
DEATH = """Worker exit type: SYSTEM_ERROR Worker exit detail: End of file.
Some common causes include: (1) the process was killed by SIGKILL by OOM killer due to high memory usage."""

SAME = [
    ("UserError: teacher map /a/b/0001.png cannot be read", "UserError: teacher map /c/0002.png cannot be read"),
    ("UserError: teacher map maps/x/left.png is cut off", "UserError: teacher map right.png is cut off"),
    ("store s3://lab/store: 503 after 3 tries", "store s3://other/place: 500 after 12 tries"),
    ("RuntimeError: no answer from 10.0.0.7:6379", "RuntimeError: no answer from 192.168.1.12:41"),
    ("node 5f3a9c0de1b2 (0x7f3a) went away after 2.5e-3 s", "node 99aabbccddee0011 (0x1) went away after 17 s"),
    ("not finite at step 12: loss nan; learning rate 0.1", "not finite at step 3140: loss nan; learning rate 1e-05"),
]
APART = [
    ("the process was killed by signal 9", "the process was killed by signal 11"),
    ("OSError: [Errno 28] No space left on device", "OSError: [Errno 5] No space left on device"),
    ("ended with exit code 1", "ended with exit code 137"),
    ("UserError: teacher map a.png cannot be read", "UserError: teacher map a.png is missing"),
    ("KeyError: abs_rel", "KeyError: rmse"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_pattern_ignores_names_ids_and_numbers(a, b):
    assert cause_pattern(a) == cause_pattern(b)


@pytest.mark.parametrize(("a", "b"), APART)
def test_pattern_keeps_signals_exit_codes_and_words(a, b):
    assert cause_pattern(a) != cause_pattern(b)


def test_short_cause_drops_rays_call_stack():
    assert short_cause(TASK) == "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert short_cause("ray::f() ended") == "ray::f() ended"


def test_short_cause_drops_rays_advice():
    assert short_cause(DEATH) == "Worker exit type: SYSTEM_ERROR Worker exit detail: End of file."


def test_groups_show_their_first_run_and_are_sorted_by_size():
    failures = [
        ("a", "failed", "KeyError: x", "/store/runs/a/error.txt"),
        ("b", "failed", "OSError: disk 1 is full", "/store/runs/b/error.txt"),
        ("c", "diverged", "OSError: disk 1 is full", ""),
        ("d", "failed", "OSError: disk 2 is full", "/store/runs/d/error.txt"),
    ]
    disk, key, diverged = group_failures(failures)
    assert (disk.cause, disk.log, disk.runs) == ("OSError: disk 1 is full", "/store/runs/b/error.txt", ["b", "d"])
    assert (key.runs, diverged.runs, diverged.state) == (["a"], ["c"], "diverged")
    assert {"cause", "count", "example", "log"} <= set(disk.to_dict())
    assert disk.to_dict()["count"] == 2

import torch

from tiekd.efficiency import FILE, IMAGES, efficiency_of, measure
from tiekd.networks import build_network, count_parameters
from tiekd.store import RunStore


def test_it_tells_time_size_and_how_they_were_measured(tiny):
    config = tiny()
    known = measure(config)
    assert known["milliseconds"] > 0
    assert known["parameters"] == count_parameters(build_network(config))
    assert (known["size"], known["images"], known["precision"]) == (list(config.data.frame_size), IMAGES, "fp32")
    assert known["threads"] == torch.get_num_threads() == config.execution.cpus_per_worker


def test_images_are_of_the_test_frames_size(tiny):
    assert measure(tiny({"data.frame_size": [96, 160]}))["size"] == [96, 160]


def test_it_is_measured_once_and_kept_with_the_run(tiny, tmp_path):
    record, config = RunStore(tmp_path).run("0123"), tiny()
    first = efficiency_of(record, config)
    assert record.read_json(FILE) == first
    record.write_json(FILE, first | {"milliseconds": 1e9})
    assert efficiency_of(record, config)["milliseconds"] == 1e9

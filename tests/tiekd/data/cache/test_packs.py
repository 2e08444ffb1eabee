import hashlib
import json
import os
import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tiekd.config import build, override
from tiekd.data import check_inputs, input_digests, open_frames, open_inputs
from tiekd.data.cache import pack_writer
from tiekd.data.cache.in_memory import cache_inputs
from tiekd.data.cache.pack_format import Pack
from tiekd.data.cache.pack_reader import pack_name
from tiekd.data.cache.pack_writer import verify_packs, write_packs
from tiekd.data.dataset import DepthDataset
from tiekd.data.progress import in_this_process
from tiekd.data.teacher_maps import MapWriter
from tiekd.data.transforms import TrainTransform
from tiekd.errors import UserError

VIEW = (352, 1216)
DEPTHS = np.linspace(3.0, 60.0, VIEW[0] * VIEW[1], dtype=np.float32).reshape(VIEW)


@pytest.fixture
def config(kitti, tmp_path):
    """Frames of two sizes, one without ground truth, and maps."""
    kitti.add(0)
    kitti.add(1, size=(370, 1226))
    kitti.add(3, with_depth=False)
    kitti.write("train")
    kitti.add(2, drive=2)
    kitti.write("test")
    data = {"dataset": "kitti", "root": str(kitti.root)}
    config = build({"data": data, "teacher": {"name": "made", "maps": str(tmp_path / "maps")}})
    export(config, DEPTHS)
    return config


@pytest.fixture
def rendered(tmp_path):
    """A small run on rendered frames, and maps."""
    data = {"dataset": "synthetic-outdoor", "train_frames": 2, "test_frames": 1, "frame_size": [64, 96], "train_crop": [48, 64]}
    teacher = {"name": "made", "maps": str(tmp_path / "maps")}
    config = build({"data": data, "teacher": teacher, "student": {"name": "tiny"}})
    export(config, DEPTHS[:64, :96])
    return config


def export(config, depth):
    """Export maps of all frames, each 1 m farther than the last."""
    keys = [key for split in ("train", "test") for key in open_frames(config.data, split).keys]
    with MapWriter(config.teacher.maps, 80.0, {}) as writer:
        for number, key in enumerate(keys):
            writer.write(key, depth + number)


@pytest.fixture
def packed(config, tmp_path):
    """The same run, reading from a pack."""
    write_packs(config, tmp_path / "packed")
    return override(config, {"execution.packed": str(tmp_path / "packed")})


def batches(config):
    """A training epoch and the evaluated frames, as bytes."""
    train, test, maps = open_inputs(config)
    training = DepthDataset(train, maps, TrainTransform(config.augment, config.data.train_crop), seed=4)
    items = [training[2, index] for index in range(len(train))] + [DepthDataset(test)[0]]
    return [{name: value.numpy().tobytes() for name, value in item.items()} for item in items]


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


def test_a_pack_has_the_bytes_and_digests_of_its_files(config, packed):
    assert batches(packed) == batches(config)
    assert input_digests(packed) == input_digests(config)
    assert packed.fingerprint(input_digests(packed)) == config.fingerprint(input_digests(config))
    check_inputs(packed)
    for files, pack_ in zip(open_inputs(config)[:2], open_inputs(packed)[:2], strict=True):
        assert files.keys == pack_.keys
        for index in range(len(files)):
            a, b = files.load(index), pack_.load(index)
            assert (a.frame_size, a.origin, a.size) == (b.frame_size, b.origin, b.size)
            assert (files.size(index), files.frame_size(index)) == (pack_.size(index), pack_.frame_size(index))
            assert files.group(index) == pack_.group(index)
            assert np.array_equal(a.image, b.image)
            assert np.array_equal(a.depth_gt, b.depth_gt)


def test_a_pack_is_read_without_copies(packed):
    train, _, maps = cache_inputs(open_inputs(packed), packed.execution.cache_gb)
    arrays = [train.load(1).image, train.load(1).depth.values, maps.load_stored(train.keys[1], VIEW).values]
    assert train is open_inputs(packed).train
    assert all(not array.flags.owndata and not array.flags.writeable for array in arrays)
    assert all(np.shares_memory(array, train.load(1).image) for array in arrays[:1])


def test_few_labels_are_read_from_a_pack_without_copies(packed, config):
    mix = {"loss.parts": {"si": {"target": "ground_truth"}, "mse": {}}, "data.labelled": 1}
    run, unpacked = override(packed, mix), override(config, mix)
    inputs = open_inputs(run)
    assert cache_inputs(inputs, run.execution.cache_gb) is inputs
    assert inputs.train.n_without_ground_truth == 2
    assert batches(run) == batches(unpacked)
    assert input_digests(run) == input_digests(unpacked)
    assert input_digests(run)["train"] != input_digests(packed)["train"]


def test_a_pack_works_without_the_packed_files(packed, config):
    before, digests = batches(packed), input_digests(config)
    shutil.rmtree(f"{config.data.root}/input")
    shutil.rmtree(f"{config.data.root}/gt_depth")
    check_inputs(override(packed, {"seed": 1}))
    for path in Path(packed.teacher.maps).rglob("*.png"):
        path.unlink()
    assert batches(packed) == before
    assert input_digests(packed) == digests


def test_loader_processes_read_the_pack(packed):
    train, _, maps = open_inputs(packed)
    dataset = DepthDataset(train, maps, TrainTransform(packed.augment, packed.data.train_crop))
    loaded = list(DataLoader(dataset, batch_size=None, num_workers=2))
    assert all(torch.equal(a["image"], dataset[i]["image"]) for i, a in enumerate(loaded))
    again, _, again_maps = (pickle.loads(pickle.dumps(part)) for part in open_inputs(packed))
    assert np.array_equal(again.load(2).image, train.load(2).image)
    assert np.array_equal(again_maps.load_stored(train.keys[2], VIEW).values, maps.load_stored(train.keys[2], VIEW).values)


def test_packing_again_adds_only_missing_packs(rendered, tmp_path):
    first = write_packs(rendered, tmp_path / "packed")["parts"]
    assert all(part["new"] for part in first.values())
    assert [part["items"] for part in first.values()] == [2, 1, 3]
    assert not any(part["new"] for part in write_packs(rendered, tmp_path / "packed")["parts"].values())
    other = override(rendered, {"teacher.maps": str(tmp_path / "other")})
    export(other, DEPTHS[:64, :96] / 2)
    assert [part["new"] for part in write_packs(other, tmp_path / "packed")["parts"].values()] == [False, False, True]
    baseline = override(rendered, {"teacher": None, "loss": {"name": "si", "target": "ground_truth"}})
    assert len(write_packs(baseline, tmp_path / "baseline")["parts"]) == 2


def test_a_pack_may_be_larger_than_memory(rendered, tmp_path):
    folder, far = tmp_path / "packed", 2**38
    write_packs(rendered, folder)
    part = folder / pack_name("frames", open_inputs(rendered).train.list_digest())
    index, manifest = np.load(part / "index.npy"), json.loads((part / "manifest.json").read_text())
    item = (part / "pixels.bin").read_bytes()[index["offset"][1] :][: index["n_bytes"][1]]
    with (part / "pixels.bin").open("r+b") as stream:  # moves the item to the end of a sparse file
        stream.seek(far)
        stream.write(item)
        manifest["n_bytes"] = stream.tell()
    index["offset"][1] = far
    np.save(part / "index.npy", index)
    manifest["index"] = hashlib.sha256((part / "index.npy").read_bytes()).hexdigest()
    (part / "manifest.json").write_text(json.dumps(manifest))
    assert batches(override(rendered, {"execution.packed": str(folder)})) == batches(rendered)


def test_packed_rendered_frames_are_bit_identical(rendered, tmp_path):
    write_packs(rendered, tmp_path / "packed")
    assert batches(override(rendered, {"execution.packed": str(tmp_path / "packed")})) == batches(rendered)


@pytest.mark.parametrize("dataset", ["kitti", "nyu"])
def test_packed_real_frames_are_bit_identical(shared_data, tmp_path, dataset):
    data = {"dataset": dataset, "root": str(shared_data / dataset)}
    config = build({"data": data, "loss": {"name": "si", "target": "ground_truth"}})
    write_packs(config, tmp_path)
    assert batches(override(config, {"execution.packed": str(tmp_path)})) == batches(config)
    verify_packs(config, tmp_path)


def test_a_pack_of_other_data_is_refused(packed, config, tmp_path):
    fewer = override(packed, {"data.train_frames": 2})
    with pytest.raises(UserError, match=r"packed: needed frames-\w+, found frames-.*, maps-\w+; `tiekd data pack .* adds it"):
        check_inputs(fewer)
    with pytest.raises(UserError, match=r"packed data \S*nowhere: no such folder; `tiekd data pack .* creates it"):
        check_inputs(override(config, {"execution.packed": str(tmp_path / "nowhere")}))


def test_a_changed_source_file_is_reported(packed, config, tmp_path):
    assert [part["files"] for part in verify_packs(packed, tmp_path / "packed")["parts"].values()] == [5, 2, 4]
    image, _ = open_frames(config.data, "train").files(0)
    os.utime(image, (1, 1))  # as a copy of the same content
    open_inputs(packed).train.check()
    image.write_bytes(image.with_name("0000000001.png").read_bytes())
    with pytest.raises(UserError, match=rf"packed data .*: {image} has changed since it was packed; delete the folder, then"):
        open_inputs(packed).train.check()
    with pytest.raises(UserError, match=r"0000000000.png has changed since it was packed"):
        verify_packs(packed, tmp_path / "packed")


def test_maps_that_were_exported_again_need_another_pack(rendered, tmp_path):
    write_packs(rendered, tmp_path / "packed")
    export(rendered, DEPTHS[:64, :96] + 1)
    with pytest.raises(UserError, match=r"needed maps-\w+, found .*maps-"):
        open_inputs(override(rendered, {"execution.packed": str(tmp_path / "packed")}))


def test_a_map_that_does_not_match_its_manifest_is_not_packed(rendered, tmp_path):
    first, second = (only(tmp_path / "maps/train", f"**/{number:04d}.png") for number in (0, 1))
    first.write_bytes(second.read_bytes())
    with pytest.raises(UserError, match=r"0000.png: does not match manifest.json"):
        write_packs(rendered, tmp_path / "packed")
    assert not list((tmp_path / "packed").glob("maps-*")) + list((tmp_path / "packed").glob(".*"))


def test_verify_finds_damaged_bytes(rendered, tmp_path):
    folder = tmp_path / "packed"
    write_packs(rendered, folder)
    assert [part["files"] for part in verify_packs(rendered, folder)["parts"].values()] == [0, 0, 3]
    pixels = only(folder, "maps-*") / "pixels.bin"
    with pixels.open("r+b") as stream:
        stream.seek(1000)
        stream.write(b"\x00\x01")
    with pytest.raises(UserError, match=r"packed data .*maps-\w+: item 0 differs from what was packed; delete the folder"):
        verify_packs(rendered, folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda part: os.truncate(part / "pixels.bin", 1000), r"index.npy or pixels.bin does not match the manifest"),
        (lambda part: (part / "index.npy").write_bytes(b"x"), r"index.npy or pixels.bin does not match the manifest"),
        (lambda part: (part / "pixels.bin").unlink(), r"pixels.bin is missing"),
        (lambda part: (part / "manifest.json").unlink(), r"manifest.json is missing"),
        (lambda part: (part / "manifest.json").write_text('{"format": 1}'), r"not a manifest of format 2: format: "),
    ],
)
def test_an_incomplete_pack_is_refused(rendered, tmp_path, damage, message):
    write_packs(rendered, tmp_path / "packed")
    part = only(tmp_path / "packed", "maps-*")
    damage(part)
    with pytest.raises(UserError, match=rf"packed data .*maps-\w+: {message}.*delete the folder, then `tiekd data pack"):
        Pack(part)


@pytest.mark.parametrize("kind", ["frames", "maps"])
def test_a_run_refuses_a_pack_whose_pixels_have_changed(rendered, tmp_path, kind):
    packed = override(rendered, {"execution.packed": str(tmp_path / "packed")})
    write_packs(rendered, tmp_path / "packed")
    assert input_digests(packed) == input_digests(rendered)
    for part in (tmp_path / "packed").glob(f"{kind}-*"):
        with (part / "pixels.bin").open("r+b") as stream:
            stream.write(b"\x00\x01")
    with pytest.raises(
        UserError, match=rf"packed data \S+{kind}-\w+: pixels\.bin has changed since it was packed; delete the folder"
    ):
        input_digests(packed)


def test_packing_without_free_space_leaves_nothing(rendered, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10**4))
    with pytest.raises(UserError, match=r"--out \S*packed: needs 0.0 GB, but 0.0 GB are free there"):
        write_packs(rendered, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_packing_on_a_full_disk_leaves_nothing(rendered, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)  # writing beyond the limit fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(UserError, match=r"--out \S*packed: frames-\w+: File too large; needed a disk with more space"):
            write_packs(rendered, tmp_path / "packed")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "packed").exists()


def test_packing_goes_on_after_a_kill_and_packs_changed_files_again(config, tree, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, "BLOCK_ITEMS", 1)
    out, whole = tmp_path / "packed", tmp_path / "whole"

    def killed_in_the_third(start, items):
        yield from in_this_process(start, list(items)[:2])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_packs(config, out, killed_in_the_third)
    assert [part.name for part in sorted(out.glob(".frames-*/parts/*.npy"))] == ["000000.npy", "000001.npy"]
    image, _ = open_frames(config.data, "train").files(0)
    image.write_bytes(open_frames(config.data, "train").files(2)[0].read_bytes())
    packed_now = []

    def recorded(start, items):
        packed_now.append([block.number for block in items])
        return in_this_process(start, items)

    write_packs(config, out, recorded)
    assert packed_now == [[0, 2], [0], [0, 1, 2, 3]]
    write_packs(config, whole)
    assert tree(out) == tree(whole)


def test_content_of_the_pack_manifest(rendered, tmp_path):
    write_packs(rendered, tmp_path / "packed")
    manifests = {path.parent.name: json.loads(path.read_text()) for path in (tmp_path / "packed").glob("*/manifest.json")}
    kinds = {name.split("-")[0]: manifest for name, manifest in manifests.items()}
    assert kinds["maps"]["made_from"] == rendered.teacher.maps
    assert kinds["frames"]["made_from"] == "synthetic-outdoor"
    assert {manifest["index"] for manifest in manifests.values()} == {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "packed").glob("*/index.npy")
    }

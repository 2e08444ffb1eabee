"""The dataset doctor: all that is wrong with a data set at once, and what it looks like otherwise."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
from pydantic import ValidationError

from tiekd.config import DataConfig
from tiekd.config.documents import explain
from tiekd.config.specs import DATASETS
from tiekd.data import open_frames
from tiekd.data.frame_source import Frame, FrameSource, Split, check_train_crop
from tiekd.data.image_io import MissingFile, pixels
from tiekd.data.split_list import ListedFrames, scan
from tiekd.errors import UserError

COLUMNS = ("image", "ground truth, or None", "focal length in px, which nothing here reads")
SHOWN = 3  # examples of one kind of problem
SAMPLED = 8  # frames of a split whose depth is read


@dataclass(frozen=True)
class DepthStatistics:
    """Of the ground truth in one frame's canonical view; depths in m, None where nothing is valid."""

    frame: str
    valid_share: float
    min: float | None
    median: float | None
    max: float | None


@dataclass
class SplitReport:
    """What was found in one split."""

    split: Split
    rows: int = 0
    unlabelled: int = 0
    groups: int = 0
    missing: dict[str, int] = field(default_factory=dict)  # kind of file: how many
    sizes: dict[str, int] = field(default_factory=dict)  # size of the uncropped frame: how many
    depth: list[DepthStatistics] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_lines(self) -> list[str]:
        sizes = ", ".join(f"{size} ({count})" for size, count in self.sizes.items())
        lines = [
            f"{self.split}: {self.rows} frames in {self.groups} drives or scenes, {self.unlabelled} without ground truth",
            f"  sizes: {sizes or 'none read'}",
        ]
        lines += [f"  missing {kind}: {count}" for kind, count in self.missing.items()]
        for row in self.depth:
            depths = "" if row.min is None else f", {row.min:.2f} to {row.max:.2f} m, median {row.median:.2f} m"
            lines.append(f"  depth of {row.frame}: {row.valid_share:.1%} valid{depths}")
        return lines + [f"  problem: {problem}" for problem in self.problems]


@dataclass(frozen=True)
class Report:
    """A data set's health: problems stop a run or spoil its numbers, remarks are worth knowing."""

    dataset: str
    root: str | None
    splits: list[SplitReport]
    remarks: list[str]

    @property
    def ok(self) -> bool:
        return not any(split.problems for split in self.splits)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok, "columns": list(COLUMNS) if DATASETS[self.dataset].frames is None else []}

    def to_text(self) -> str:
        lines = [f"{self.dataset} in {self.root}" if self.root else self.dataset]
        if DATASETS[self.dataset].frames is None:
            lines.append(f"columns of a list: {'; '.join(COLUMNS)}")
        for split in self.splits:
            lines += split.to_lines()
        lines += [f"remark: {remark}" for remark in self.remarks]
        return "\n".join([*lines, "no problems" if self.ok else "there are problems"])


def data_config(root: str | Path, dataset: str | None, settings: Mapping[str, Any]) -> DataConfig:
    """The data section for a folder: a data set's preset, laid under `settings` ("data.test_split" or just "test_split").

    Without `dataset` it is the one whose split lists are in the folder.
    """
    dataset = dataset or _recognised(Path(root))
    defaults = DATASETS[dataset].defaults["data"] if dataset in DATASETS else {}
    named = {path.removeprefix("data."): value for path, value in settings.items()}
    try:
        return DataConfig(**{**defaults, "dataset": dataset, "root": str(root), **named})
    except ValidationError as error:
        raise UserError(f"data: {explain(error, DataConfig)}") from None


def _recognised(root: Path) -> str:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    listed = {name: spec.defaults["data"] for name, spec in DATASETS.items() if spec.frames is None}
    lists = {name: (data["train_split"], data["test_split"]) for name, data in listed.items()}
    found = [name for name, files in lists.items() if any((root / file).is_file() for file in files)]
    if len(found) != 1:
        wanted = "; ".join(f"{name}: {', '.join(files)}" for name, files in lists.items())
        raise UserError(
            f"{root}: found the split lists of {' and '.join(found) or 'no data set'} ({wanted}); name the data set"
        )
    return found[0]


def check_dataset(config: DataConfig) -> Report:
    """Look at every row, at the header of every file and at the depth of some frames; goes on after a problem."""
    reports, keys = [], []
    for split in ("train", "test"):
        report = SplitReport(split)
        reports.append(report)
        try:
            source, problems = _opened(config, split)
        except UserError as error:
            report.problems.append(str(error))
            continue
        report.problems += problems
        keys.append(set(source.keys))
        _describe(source, config, report)
    shared = sorted(set.intersection(*keys)) if len(keys) == 2 else []
    remarks = [f"{len(shared)} test frames are also training frames{_first(shared)}"] if shared else []
    return Report(config.dataset, config.root, reports, remarks)


def _opened(config: DataConfig, split: Split) -> tuple[FrameSource, list[str]]:
    """The frames of a split and, of a list, what is wrong with its lines."""
    if config.spec.frames is None:
        return scan(config, split, resolve_name(config.spec.layout))
    return open_frames(config, split), []


def _describe(source: FrameSource, config: DataConfig, report: SplitReport) -> None:
    """Fill in the report of a split that could be opened."""
    report.rows, report.unlabelled = len(source), source.unlabelled
    report.groups = len({source.group(index) for index in range(len(source))})
    repeated = [key for key, count in Counter(source.keys).items() if count > 1]
    if repeated:
        report.problems.append(f"{len(repeated)} frames are listed more than once{_first(repeated)}")
    if len(source) and source.unlabelled == len(source):
        report.problems.append(f"none of the {len(source)} frames has ground truth")
    readable = _survey(source, report) if isinstance(source, ListedFrames) else list(range(len(source)))
    frames = _sampled(source, readable, report)
    report.depth = [_statistics(key, frame) for key, frame in frames.items()]
    if not report.sizes:
        report.sizes = dict(Counter(pixels(frame.frame_size) for frame in frames.values()))
    if report.split == "train" and frames:
        key, frame = next(iter(frames.items()))
        try:
            check_train_crop(config.train_crop, frame.size, source.train_border, key)
        except UserError as error:
            report.problems.append(str(error))


def _survey(source: ListedFrames, report: SplitReport) -> list[int]:
    """Look for every file, then at the header of each; returns the frames that passed."""
    for kind, missing in zip(("images", "depth maps"), source.missing(), strict=True):
        report.missing[kind] = len(missing)
        if missing:
            report.problems.append(f"{len(missing)} {kind} are missing{_first(missing)}")
    sizes, readable, broken = Counter(), [], []
    for index in range(len(source)):
        try:
            sizes[pixels(source.frame_size(index))] += 1
            readable.append(index)
        except MissingFile:
            continue  # counted above
        except UserError as error:
            broken.append(str(error))
    report.sizes = dict(sizes.most_common())
    report.problems += broken[:SHOWN]
    if len(broken) > SHOWN:
        report.problems.append(f"{len(broken) - SHOWN} more frames cannot be used for reasons like these")
    return readable


def _sampled(source: FrameSource, readable: list[int], report: SplitReport) -> dict[str, Frame]:
    """Some frames, spread evenly over those that can be read."""
    places = np.unique(np.linspace(0, len(readable) - 1, SAMPLED).round().astype(int)) if readable else []
    frames = {}
    for place in places:
        index = readable[place]
        try:
            frames[source.keys[index]] = source.load(index)
        except UserError as error:
            report.problems.append(str(error))
    return frames


def _statistics(key: str, frame: Frame) -> DepthStatistics:
    valid = frame.depth_gt[frame.depth_gt > 0]
    if not valid.size:
        return DepthStatistics(key, 0.0, None, None, None)
    share = valid.size / frame.depth_gt.size
    return DepthStatistics(key, share, float(valid.min()), float(np.median(valid)), float(valid.max()))


def _first(names: list[str]) -> str:
    return f", first {', '.join(names[:SHOWN])}"

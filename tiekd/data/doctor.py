"""The dataset doctor: list all problems of a data set at once, and describe its content."""

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import numpy as np
import yaml
from pydantic import ValidationError

from tiekd.config import DataConfig, FolderConfig
from tiekd.config.documents import explain, with_values
from tiekd.config.specs import DATASETS
from tiekd.config.specs.folders import FOLDER_LAYOUTS
from tiekd.data import open_frames
from tiekd.data.depth_files import depth_header
from tiekd.data.depth_range import check_units
from tiekd.data.frame_source import Frame, FrameSource, Split, check_train_crop, same_frames
from tiekd.data.image_io import MissingFileError, format_size
from tiekd.data.layouts.folder import Entry, FolderFrames, find_entries, group_names, list_files
from tiekd.data.layouts.split_list import ListedFrames, scan_split_list
from tiekd.data.progress import track
from tiekd.errors import UserError

COLUMNS = ("image", "ground truth, or None", "focal length in px, not used")
MAX_EXAMPLES = 3  # per kind of problem
N_DEPTH_FRAMES = 8  # frames of a split whose depth is read


@dataclass(frozen=True)
class DepthStatistics:
    """Statistics of the ground truth in the canonical view of a frame. Depths in m; None if no pixel is valid."""

    frame: str
    valid_share: float
    min: float | None
    median: float | None
    max: float | None


@dataclass
class SplitReport:
    """The content and the problems of one split."""

    split: Split
    rows: int = 0
    unlabelled: int = 0  # frames without ground truth
    groups: int = 0
    missing: dict[str, int] = field(default_factory=dict)  # kind of file: count
    sizes: dict[str, int] = field(default_factory=dict)  # size of the uncropped frame: count
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
class DatasetReport:
    """The state of a data set. Problems stop a run or make its results wrong; remarks do not."""

    dataset: str
    root: str | None
    splits: list[SplitReport]
    remarks: list[str]
    layout: str = ""  # that was recognized; "" if the user has named the data set
    settings: dict[str, Any] = field(default_factory=dict)  # the `data` section of the recognized layout

    @property
    def ok(self) -> bool:
        return not any(split.problems for split in self.splits)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ok": self.ok, "columns": list(COLUMNS) if DATASETS[self.dataset].frames is None else []}

    def to_text(self) -> str:
        lines = [f"{self.dataset} in {self.root}" if self.root else self.dataset]
        if self.layout:
            lines = [f"layout of {self.layout}; in a config:", "", *_yaml_lines(self.settings), ""]
        if DATASETS[self.dataset].frames is None:
            lines.append(f"columns of a list: {'; '.join(COLUMNS)}")
        for split in self.splits:
            lines += split.to_lines()
        lines += [f"remark: {remark}" for remark in self.remarks]
        return "\n".join([*lines, "no problems" if self.ok else "there are problems"])


def data_config(root: str | Path, dataset: str | None, settings: Mapping[str, Any]) -> DataConfig:
    """Build the data section for a folder from the defaults of a data set and `settings` ("data.test_split" or "test_split").

    Without `dataset` it is the data set whose split lists are in the folder.
    """
    dataset = dataset or _detect_dataset(Path(root))
    defaults = DATASETS[dataset].defaults["data"] if dataset in DATASETS else {}
    try:
        return DataConfig(**with_values({**defaults, "dataset": dataset, "root": str(root)}, _of_data(settings)))
    except ValidationError as error:
        raise UserError(f"data: {explain(error, DataConfig)}") from None


def _split_lists() -> dict[str, tuple[str, str]]:
    """The names of both split lists of each data set that has them."""
    listed = {name: spec.defaults["data"] for name, spec in DATASETS.items() if spec.frames is None}
    return {name: (data["train_split"], data["test_split"]) for name, data in listed.items()}


def _has_lists(root: Path) -> bool:
    return any((root / file).is_file() for files in _split_lists().values() for file in files)


def _detect_dataset(root: Path) -> str:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    lists = _split_lists()
    found = [name for name, files in lists.items() if any((root / file).is_file() for file in files)]
    if len(found) != 1:
        wanted = "; ".join(f"{name}: {', '.join(files)}" for name, files in lists.items())
        raise UserError(
            f"{root}: found the split lists of {' and '.join(found) or 'no data set'} ({wanted}); name the data set; or "
            f"describe any RGB-D folder by data.folder, for the frames here have no usual layout ({', '.join(FOLDER_LAYOUTS)})"
        )
    return found[0]


def _of_data(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their path below `data`."""
    return {path.removeprefix("data."): value for path, value in settings.items()}


def check_folder(root: Path, settings: Mapping[str, Any]) -> DatasetReport:
    """Check a folder as what it is recognized as: a data set by its split lists, or the layout of an RGB-D folder."""
    known = _has_lists(root) or any(path.startswith("folder.") for path in _of_data(settings))
    found = None if known else recognize_folder(root)
    if found is None:
        dataset = "folder" if known and not _has_lists(root) else None
        return check_dataset(data_config(root, dataset, settings))
    section = with_values(found.section, _of_data(settings))
    report = check_dataset(data_config(root, "folder", {key: value for key, value in section.items() if key != "root"}))
    return replace(report, layout=found.layout, settings=section)


class Recognized(NamedTuple):
    """The layout of an RGB-D folder, and the `data` section that describes it."""

    layout: str
    section: dict[str, Any]


def recognize_folder(root: Path) -> Recognized | None:
    """Find the layout of an RGB-D folder; None if none has frames. Of several, that with the most pairs of image and depth."""
    found: dict[str, list[Entry]] = {}
    names = list_files(root)
    for name, layout in FOLDER_LAYOUTS.items():
        with contextlib.suppress(UserError):  # names that are no times
            found[name] = _pairs(names, FolderConfig.model_validate(layout.settings))
    name = max(found, key=lambda name: len(found[name]))
    if not found[name]:
        return None
    layout, folder = FOLDER_LAYOUTS[name], FolderConfig.model_validate(FOLDER_LAYOUTS[name].settings)
    settings = dict(layout.settings)
    if "{split}" not in folder.images and len(set(group_names(found[name], folder))) == 1:
        settings |= {"split_by": "time", "split_gap": 0.1, "group_frames": 20}  # one scene: neighbours in time are alike
    height, width = depth_header(root / str(found[name][0].depth)).size
    crop = [max(int(0.87 * side) // 32 * 32, 32) for side in (height, width)]
    sizes = {"frame_size": [height, width], "train_crop": crop, "max_depth": layout.max_depth}
    return Recognized(name, {"dataset": "folder", "root": str(root), "folder": settings, **sizes})


def _pairs(names: Sequence[str], folder: FolderConfig) -> list[Entry]:
    """The frames with a depth map of both splits."""
    places = folder.splits if "{split}" in folder.images else ("",)
    return [entry for place in places for entry in find_entries(names, folder, place) if entry.depth]


def _yaml_lines(section: Mapping[str, Any]) -> list[str]:
    """A `data` section to paste, with a line per setting."""
    lines = ["data:"]
    for key, value in section.items():
        text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
        lines.append(f"  {key}: {text.splitlines()[0]}")
    return lines


def check_dataset(config: DataConfig) -> DatasetReport:
    """Check every row, the header of every file and the depth of some frames; does not stop at a problem."""
    splits: list[Split] = ["train", "test"]
    reports: list[SplitReport] = []
    sources: list[FrameSource] = []
    remarks: list[str] = []
    if _is_for_evaluation(config):
        splits.remove("train")
        remarks.append(f"{config.train_split} is not there: the data can be evaluated on, not trained on")
    for split in splits:
        report = SplitReport(split)
        reports.append(report)
        try:
            source, problems = _open_split(config, split)
        except UserError as error:
            report.problems.append(str(error))
            continue
        report.problems += problems
        sources.append(source)
        remarks += _describe(source, config, report)
    if len(sources) == 2:
        remarks += _remarks_on_both(*sources)
    return DatasetReport(config.dataset, config.root, reports, remarks)


def _is_for_evaluation(config: DataConfig) -> bool:
    """Whether a folder has a test list, and lacks a training list that no setting names."""
    if config.spec.frames is not None or not (config.root and config.train_split and config.test_split):
        return False
    usual = config.train_split == config.spec.defaults["data"].get("train_split")
    return usual and Path(config.root, config.test_split).is_file() and not Path(config.root, config.train_split).exists()


def _remarks_on_both(train: FrameSource, test: FrameSource) -> list[str]:
    """Tell which frames, drives and scenes are in both splits."""
    remarks = []
    try:
        same_frames(train, test)
    except UserError as error:
        remarks.append(f"no teacher can be used: {error}")
    else:
        shared = sorted(set(train.keys) & set(test.keys))
        remarks += [f"{len(shared)} test frames are also training frames{_first_of(shared)}"] if shared else []
    groups = [{source.group(index) for index in range(len(source))} - {""} for source in (train, test)]
    if shared := sorted(set.intersection(*groups)):
        remarks.append(f"{len(shared)} drives or scenes are in both splits{_first_of(shared)}")
    return remarks


def _open_split(config: DataConfig, split: Split) -> tuple[FrameSource, list[str]]:
    """The frames of a split, and one message per invalid line of its list."""
    if config.spec.frames is None:
        return scan_split_list(config, split, resolve_name(str(config.spec.layout)))
    return open_frames(config, split), []


def _describe(source: FrameSource, config: DataConfig, report: SplitReport) -> list[str]:
    """Fill in the report of a split. Returns remarks."""
    report.rows, report.unlabelled = len(source), source.n_without_ground_truth
    report.groups = len({source.group(index) for index in range(len(source))})
    try:
        if repeated := same_frames(source):
            report.problems.append(f"{len(repeated)} frames are listed more than once{_first_of(repeated)}")
    except UserError as error:
        report.problems.append(str(error))
    if len(source) and source.n_without_ground_truth == len(source):
        report.problems.append(f"none of the {len(source)} frames has ground truth")
    if isinstance(source, ListedFrames):
        _report_missing(source, report)
    of_files = isinstance(source, ListedFrames | FolderFrames)
    readable = _check_headers(source, report) if of_files else list(range(len(source)))
    frames = _load_some(source, readable, report)
    report.depth = [_statistics(key, frame) for key, frame in frames.items()]
    labelled = {key for index, key in enumerate(source.keys) if source.has_ground_truth(index)}
    remark = ""
    try:
        depths = (frame.depth_gt for key, frame in frames.items() if key in labelled)
        remark = check_units(depths, config.max_depth, "ground truth")
    except UserError as error:
        report.problems.append(str(error))
    if not report.sizes:
        report.sizes = dict(Counter(format_size(frame.frame_size) for frame in frames.values()))
    if report.split == "train" and frames:
        key, frame = next(iter(frames.items()))
        try:
            check_train_crop(config.train_crop, frame.size, source.train_region, key)
        except UserError as error:
            report.problems.append(str(error))
    return [f"{report.split}: {remark}"] if remark else []


def _report_missing(source: ListedFrames, report: SplitReport) -> None:
    """Report the files of a split list that do not exist."""
    for kind, missing in zip(("images", "depth maps"), source.missing(), strict=True):
        report.missing[kind] = len(missing)
        if missing:
            report.problems.append(
                f"{len(missing)} {kind} are missing{_first_of(missing)}{source.place_hint(kind, missing[0])}"
            )


def _check_headers(source: FrameSource, report: SplitReport) -> list[int]:
    """Check the header of every file. Returns the frames without problems."""
    sizes: Counter[str] = Counter()
    readable, broken = [], []
    for index in track(range(len(source)), f"{report.split} files"):
        try:
            sizes[format_size(source.frame_size(index))] += 1
            readable.append(index)
        except MissingFileError:
            continue  # counted above
        except UserError as error:
            broken.append(str(error))
    report.sizes = dict(sizes.most_common())
    report.problems += broken[:MAX_EXAMPLES]
    if len(broken) > MAX_EXAMPLES:
        report.problems.append(f"{len(broken) - MAX_EXAMPLES} more frames have problems like these")
    return readable


def _load_some(source: FrameSource, readable: list[int], report: SplitReport) -> dict[str, Frame]:
    """Load some evenly spaced frames of those without problems."""
    positions = np.linspace(0, len(readable) - 1, min(N_DEPTH_FRAMES, len(readable))).round().astype(int)
    frames = {}
    for position in positions:
        index = readable[position]
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


def _first_of(names: list[str]) -> str:
    return f", first {', '.join(names[:MAX_EXAMPLES])}"

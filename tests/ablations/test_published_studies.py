"""The studies of this repository: together they are the published tables."""

import csv
from collections import Counter
from pathlib import Path

import pytest

from ablations.study import load_study
from ablations.variants import expand
from search_spaces.space import load_space
from tiekd.config import RunConfig, build
from tiekd.presets import BACKBONE_LABELS, LOSS_LABELS

ROOT = Path(__file__).parents[2]
STUDIES = ROOT / "ablations" / "studies"


def published_rows() -> list[tuple[str, ...]]:
    """dataset, teacher, method, loss, backbone of every published student."""
    columns = ("dataset", "teacher", "method", "loss", "backbone")
    rows = []
    for path in (ROOT / "reports" / "published").glob("*.csv"):
        with path.open() as file:
            rows += [tuple(row[c] for c in columns) for row in csv.DictReader(file) if row["role"] == "student"]
    return rows


def row_of(config: RunConfig) -> tuple[str, ...]:
    """The same of one run, by its config and not by the names of a study's levels."""
    teacher = config.teacher.name if config.loss.target == "teacher" else ""
    labels = (config.method, LOSS_LABELS[config.loss.name], BACKBONE_LABELS[config.student.name])
    return config.data.dataset, teacher, *labels


def test_they_expand_to_the_published_rows_each_once_per_seed():
    cells = [cell for name in ("kitti", "nyu", "backbones") for cell in expand(load_study(STUDIES / f"{name}.yaml"))]
    found = Counter((*row_of(cell.config), cell.config.seed) for cell in cells)
    published = published_rows()
    assert len(published) == 66
    assert found == Counter((*row, seed) for row in published for seed in (0, 1, 2))


def test_their_cells_have_the_published_epochs_and_sigma():
    sigma = {("kitti", "mobilenetv2"): 0.8, ("kitti", "resnet18"): 0.8, ("kitti", "resnet50"): 0.5}
    for name in ("kitti", "nyu", "backbones"):
        for cell in expand(load_study(STUDIES / f"{name}.yaml")):
            config = cell.config
            assert config.optim.epochs == 24
            if "sigma" in config.loss.traits.reads:
                assert config.loss.sigma == sigma.get((config.data.dataset, config.student.name), 0.15)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_expands_and_is_named_like_its_file(path):
    study = load_study(path)
    assert study.name == path.stem
    assert len(expand(study)) > 1


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_space_of_a_search_exists_and_fits_its_base(path):
    study = load_study(path)
    if study.search:
        load_space(study.search.space, beside=path.parent).check_paths(build(study.base).document())

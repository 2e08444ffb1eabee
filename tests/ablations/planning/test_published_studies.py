"""The packaged studies: together they are the published tables, as configured and as executed."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from support.paths import ROOT

from ablations.planning.cells import StudyCell, expand_cells, filter_cells
from ablations.planning.study import load_study
from search_spaces.space import load_space
from tiekd.config import RunConfig, build
from tiekd.config.labels import fidelity, labels
from tiekd.config.quirks import QUIRKS

STUDIES = ROOT / "ablations" / "studies"
SHARED = ROOT.parent / "shared" / "published"
COLUMNS = ("dataset", "role", "teacher", "method", "loss", "backbone")
SEEDS = (0, 1, 2)
# Studies and overrides; each of the three has the 66 students and 6 teachers.
CORRECTED = {"kitti": {}, "nyu": {}, "backbones": {}}
RELEASED = {"kitti": {"fidelity": "released"}, "nyu": {"fidelity": "released"}, "backbones-released": {}}
BUT_FOR_ALPHA = {name: {"fidelity": "released"} for name in CORRECTED}
QUIRK_STUDIES = ("fidelity", "fidelity-704")
FIDELITIES = {"corrected": CORRECTED, "released": RELEASED}

# Differences between a cell and its released config: setting, configured, ours.
DIFFERENCES = {
    "TIE-KD_bts_r50_KITTI": {"loss_weight": ("1.5", "0.1")},  # as configured under `released`
    # Classes that were not released.
    "TIE-KD_depthformer_NYU": {"head": ("DenseDepthHead54", "DenseDepthHead_DPM")},
    "TIE-KD_depthformer_L_DPM_NYU": {
        "head": ("DenseDepthHead54", "DenseDepthHead_DPM"),
        "loss": ("SigLoss136", "L_DPM_loss"),
    },
    "TIE-KD_depthformer_L_DEPTH_NYU": {
        "head": ("DenseDepthHead54", "DenseDepthHead_DPM"),
        "loss": ("SigLoss135", "L_DEPTH_loss"),
    },
    # 38400 steps, which the published table calls 24 epochs.
    "depthformer_swinl_22k_w7_kitti": {"schedule": (None, "schedule_24x")},
    "depthformer_swinl_22k_w7_nyu": {"schedule": (None, "schedule_24x")},
}
# Rows whose published link points to the config of another row, or to no file.
WRONG_LINKS = {
    "TIE-KD_adabins_KITTI": "TIE-KD_adabins_NYU",
    "TIE-KD_bts_r50_KITTI": "TIE-KD_bt_r50_KITTI",
    **{f"Res-KD_bts_{loss}_KITTI": f"Res-KD_bts_{loss}_NYU" for loss in ("SSIM", "MSE", "SI", "SSIM_SI", "SSIM_MSE")},
}
UNPUBLISHED = {f"Res-KD_{teacher}_r18_SSIM_SI_KITTI" for teacher in ("adabins", "bts", "depthformer")}
TEACHER_FILES = {
    ("kitti", "adabins"): "adabins_efnetb5ap_kitti_24e",
    ("kitti", "bts"): "bts_r50_kitti_24e_b4",
    ("kitti", "depthformer"): "depthformer_swinl_22k_w7_kitti",
    ("nyu", "adabins"): "adabins_efnetb5ap_nyu_24e",
    ("nyu", "bts"): "bts_r50_nyu_24e",
    ("nyu", "depthformer"): "depthformer_swinl_22k_w7_nyu",
}
LOSS_CLASSES = {
    "si": "SI_loss",
    "mse": "MSE_loss",
    "ssim": "SSIM_loss",
    "ssim_si": "SSIM_SI_loss",
    "ssim_mse": "SSIM_MSE_loss",
    "l_dpm": "L_DPM_loss",
    "l_depth": "L_DEPTH_loss",
    "tie_kd": "TIE_KD_loss",
}
WEIGHTS = {"si": "si_weight", "mse": "mse_weight", "ssim": "ssim_weight", "ssim_si": "ssim_weight", "ssim_mse": "ssim_weight"}
SHORT = {"mobilenetv2": "mobilev2", "resnet18": "resnet18", "resnet50": "resnet50", "depthformer": "depthformer_swin"}


@cache
def configs_of(name: str, override: str = "") -> list[RunConfig]:
    """Return the configs of a packaged study, with a fidelity if one is given."""
    study = load_study(STUDIES / f"{name}.yaml", {"fidelity": override} if override else {})
    return [cell.config for cell in expand_cells(study)]


def configs(studies: dict[str, dict]) -> Iterator[RunConfig]:
    for name, overrides in studies.items():
        yield from configs_of(name, overrides.get("fidelity", ""))


def rows_in(path: Path) -> list[tuple[str, ...]]:
    with path.open(newline="") as file:
        return [tuple(row[column] for column in COLUMNS) for row in csv.DictReader(file)]


def row_of(config: RunConfig) -> tuple[str, ...]:
    """Return a run's row in the published tables, from its config and not from level names. Teachers have no loss."""
    found = labels(config)
    if config.method == "Teacher":
        found |= {"role": "teacher", "method": "", "loss": ""}
    return tuple(({"role": "student"} | found)[column] for column in COLUMNS)


@pytest.mark.parametrize("studies", [CORRECTED, RELEASED, BUT_FOR_ALPHA], ids=["corrected", "released", "released but alpha"])
@pytest.mark.parametrize("source", ["repository", "paper"])
def test_studies_expand_to_the_published_rows_once_per_seed(studies, source):
    files = [SHARED / "tie_kd_tables.csv"] if source == "paper" else sorted((ROOT / "reports" / "published").glob("*.csv"))
    if not all(path.is_file() for path in files):
        pytest.skip("the published tables are not beside this checkout")
    published = [row for path in files for row in rows_in(path)]
    assert Counter(role for _, role, *_ in published) == {"student": 66, "teacher": 6}
    found = Counter((*row_of(config), config.seed) for config in configs(studies))
    assert found == Counter((*row, seed) for row in published for seed in SEEDS)
    assert {fidelity(config) for config in configs(studies)} == {"corrected" if studies is CORRECTED else "released"}


def test_fidelities_have_no_run_in_common():
    runs = [{config.fingerprint() for config in configs(studies)} for studies in (CORRECTED, RELEASED)]
    assert [len(ids) for ids in runs] == [72 * len(SEEDS)] * 2
    assert not runs[0] & runs[1]


def test_fidelity_override_differs_from_the_released_study_only_in_alpha():
    executed, one_command = ({config.fingerprint() for config in configs(studies)} for studies in (RELEASED, BUT_FOR_ALPHA))
    apart = [config for config in configs(RELEASED) if config.fingerprint() in executed - one_command]
    assert {file_of(config) for config in apart} == {"TIE-KD_bts_r50_KITTI"}


# -- against the released configs ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def released() -> dict[str, dict]:
    """The settings of each released config, by file name without extension."""
    path = SHARED / "released_configs.json"
    if not path.is_file():
        pytest.skip("the settings of the released configs are not beside this checkout")
    return {name.removesuffix(".py"): settings for name, settings in json.loads(path.read_text()).items()}


def file_of(config: RunConfig) -> str:
    """Return the name of the released config of a run."""
    dataset, backbone = config.data.dataset, {"mobilenetv2": "", "resnet18": "r18", "resnet50": "r50"}.get(config.student.name)
    if config.method == "Teacher":
        return TEACHER_FILES[dataset, config.student.name]
    if config.method == "Baseline":
        return f"baseline_{backbone or 'mobile2'}_{dataset.upper()}"
    loss = "" if config.loss.name == "tie_kd" else LOSS_CLASSES[config.loss.name].removesuffix("_loss")
    return "_".join(filter(None, [config.method, config.teacher.name, backbone, loss, dataset.upper()]))


def as_released(config: RunConfig) -> dict[str, str | None]:
    """Return a run's settings with the names of the released configs."""
    student, loss, data = config.student, config.loss, config.data
    said = {
        "dataset": data.dataset if student.is_teacher else f"{data.dataset}_kd_with_b8_{config.teacher.name}",
        "model": SHORT.get(student.name, student.name) if student.is_teacher else f"densedepth_{SHORT[student.name]}",
        "schedule": f"schedule_{config.optim.epochs}x",
        "min_depth": number(data.min_depth),
        "max_depth": number(data.max_depth),
    }
    if student.is_teacher:  # except for the loss of BTS, the rest is in the configs of the models
        return said | ({"loss": "SI_loss", "loss_weight": number(loss.si_weight)} if student.name == "bts" else {})
    dpm = student.head == "dpm"
    return said | {
        "head": f"DenseDepthHead_{'DPM' if dpm else 'base_custom_kd'}{'_resnet' * student.name.startswith('resnet')}",
        "n_bins": number(config.bins.n_bins) if dpm else None,
        "loss_edges": number(config.bins.n_bins + 1) if dpm else None,
        "sigma": number(loss.sigma) if dpm else None,
        "loss": LOSS_CLASSES[loss.name],
        "loss_weight": number(getattr(loss, WEIGHTS.get(loss.name, "alpha"))),
    }


def number(value: float | str | None) -> str | None:
    """Return a number in a canonical form."""
    return None if value is None else f"{float(value):g}"


def said_by(settings: dict) -> dict[str, str | None]:
    """Return a released config with its numbers in canonical form. SI and MSE have the weight 1 by default."""
    numbers = {key: number(settings[key]) for key in ("n_bins", "loss_edges", "sigma", "loss_weight", "min_depth", "max_depth")}
    if settings["loss"] in ("SI_loss", "MSE_loss") and numbers["loss_weight"] is None:
        numbers["loss_weight"] = "1"
    return settings | numbers


@pytest.mark.parametrize("name", FIDELITIES)
def test_rows_match_the_released_configs_except_listed_differences(released, name):
    found = {}
    for config in configs(FIDELITIES[name]):
        assert config.optim.batch_size == 16  # 2 GPUs x b8
        ours, said = as_released(config), said_by(released[file_of(config)])
        found[file_of(config)] = {key: (said[key], ours[key]) for key in ours if said[key] != ours[key]}
    listed = DIFFERENCES if name == "corrected" else {k: v for k, v in DIFFERENCES.items() if k != "TIE-KD_bts_r50_KITTI"}
    assert {key: value for key, value in found.items() if value} == listed
    assert released.keys() - found.keys() == UNPUBLISHED


def test_published_links_that_are_wrong_are_listed(released):
    with (SHARED / "tie_kd_tables.csv").open(newline="") as file:
        links = {tuple(row[c] for c in COLUMNS): Path(row["config"]).name.removesuffix(".py") for row in csv.DictReader(file)}
    joined = {file_of(config): links[row_of(config)] for config in configs(CORRECTED)}
    assert {name: link for name, link in joined.items() if name != link} == WRONG_LINKS


def test_released_cells_have_the_quirks_of_the_released_code():
    for config in configs(RELEASED):
        loss = config.loss.name
        assert ("fixed_sigma" in config.quirks) == (loss == "tie_kd")  # the released L_DPM alone uses its sigma
        assert ("ignored_weights" in config.quirks) == (loss in ("mse", "ssim_si", "ssim_mse"))
        assert ("alpha_unbounded" in config.quirks) == (file_of(config) == "TIE-KD_bts_r50_KITTI")
        if config.method == "Baseline":
            assert (config.reads_teacher, config.teacher.name) == (True, "depthformer")


def test_corrected_baselines_and_teachers_need_no_maps():
    reading = Counter((config.method, config.reads_teacher) for config in configs(CORRECTED) if config.seed == 0)
    assert reading == {("Teacher", False): 6, ("Baseline", False): 6, ("Res-KD", True): 30, ("TIE-KD", True): 30}


def test_teachers_are_selected_by_method():
    chosen = filter_cells(cells_of("kitti"), ["method=Teacher", "seed=0"])
    assert [cell.labels["teacher"] for cell in chosen] == ["adabins", "bts", "depthformer"]
    assert [cell.config.loss.target for cell in chosen] == ["ground_truth"] * 3


def cells_of(name: str) -> list[StudyCell]:
    return expand_cells(load_study(STUDIES / f"{name}.yaml"))


# -- quirk by quirk ------------------------------------------------------------------------------------------------------------


def test_every_quirk_is_alone_in_one_cell():
    acting = [cell.config.quirks for name in QUIRK_STUDIES for cell in cells_of(name) if cell.config.seed == 0]
    alone = Counter(name for quirks in acting if len(quirks) == 1 for name in quirks)
    assert alone == Counter(QUIRKS.keys())


@pytest.mark.parametrize("name", QUIRK_STUDIES)
def test_every_quirk_has_a_reference_cell_with_equal_seeds(name):
    """The reference differs only in the quirk; alpha_unbounded also has an alpha above 1."""
    cells = cells_of(name)
    corrected = {read_by(cell.config): cell for cell in cells if cell.factors["quirk"] == "corrected"}
    for cell in cells:
        settings = cell.config.model_copy(update={"fidelity": "corrected"})
        if cell.factors["quirk"] == "alpha_unbounded":
            settings = settings.model_copy(update={"loss": settings.loss.model_copy(update={"alpha": 0.1})})
        assert read_by(settings) in corrected
    each = Counter(str(cell.factors) for cell in cells)
    assert set(each.values()) == {len(load_study(STUDIES / f"{name}.yaml").seeds)}


def read_by(config: RunConfig) -> str:
    return json.dumps(config.identity(), sort_keys=True)


# -- every study ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_expands_and_has_the_name_of_its_file(path):
    study = load_study(path)
    assert study.name == path.stem
    assert len(expand_cells(study)) > 1


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_search_space_of_a_study_fits_its_base(path):
    study = load_study(path)
    if study.search:
        load_space(study.search.space, beside=path.parent).for_base(build(study.base).document())

"""Study documents: a base config, the factors that vary, the seeds, and optionally a search."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from ablations.planning.search_config import SearchConfig
from ablations.planning.seeds import SeedsConfig
from tiekd.config import Section, with_complete_teacher
from tiekd.config.documents import explain, read_document, with_values
from tiekd.config.report_config import ReportConfig
from tiekd.errors import UserError, unknown
from tiekd.store.files import safe_name

STUDIES_FOLDER = Path(__file__).parents[1] / "studies"
MAX_CELLS = 100_000  # of a study, or points of a grid
Levels = list[str | int | float | bool | None] | dict[str, dict[str, Any]]
Factors = dict[str, Levels]
NO_RESULT = ("evaluation.also", "evaluation.every", "teacher.name")  # settings that change no result by themselves


class StudyConfig(Section):
    """One YAML document of ablations/studies.

    A factor is a config path with a list of values, or any other name with named levels, each a set of overrides:

        factors:
          loss.temperature: [0.1, 1.0]
          method:
            baseline: {loss.name: si, loss.target: ground_truth}
            tie-kd: {loss.name: tie_kd}

    A list of such mappings is the union of their cells.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100, description="its folder in the store")
    title: str = Field("", description="heading in reports")
    base: dict[str, Any] = Field(description="a run config; a study's cells are overrides of it")
    factors: Factors | list[Factors] = Field(default_factory=dict)
    vary: Literal["grid", "one_at_a_time"] = Field("grid", description="all combinations, or one factor at a time")
    seeds: list[int] | SeedsConfig = Field([0], description="each cell is one run per seed; or until rows are decided")
    report: ReportConfig | None = Field(None, description="its table as a paper prints it, in paper/ of a report")
    search: SearchConfig | None = None

    @field_validator("factors", mode="before")
    @classmethod
    def _check_factors(cls, factors: Any) -> Any:
        """Check the structure before pydantic does, whose messages about these unions are hard to read."""
        for block in factors if isinstance(factors, list) else [factors]:
            if not isinstance(block, dict):
                raise ValueError(f"factors: expected a mapping of factors to levels, or a list of such mappings, got {block!r}")
            for name, levels in block.items():
                _check_levels(name, levels)
        return factors

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if safe_name(name) != name:
            raise ValueError(f"name: it becomes the name of a folder, which cannot be {name!r} on every system")
        return name

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int] | SeedsConfig) -> list[int] | SeedsConfig:
        if isinstance(seeds, list) and not seeds:
            raise ValueError("seeds: needs at least one")
        if isinstance(seeds, list) and len(set(seeds)) != len(seeds):
            raise ValueError(f"seeds: must not repeat a value, got {seeds}")
        return seeds

    @property
    def all_seeds(self) -> list[int]:
        """The seeds that a cell can have."""
        return list(range(self.seeds.max)) if isinstance(self.seeds, SeedsConfig) else self.seeds

    @property
    def blocks(self) -> list[Factors]:
        """The mappings of factors whose cells the study unites."""
        return self.factors if isinstance(self.factors, list) else [self.factors]


def _check_levels(name: Any, levels: Any) -> None:
    if isinstance(levels, list) and not any(isinstance(value, list | dict) for value in levels):
        paths = {name}
    elif isinstance(levels, dict) and all(isinstance(k, str) and isinstance(v, dict) for k, v in levels.items()):
        paths = factor_paths(name, levels)
    else:
        raise ValueError(
            f"factor {name}: expected a list of single values, or named levels such as {{a: {{loss.sigma: 0.5}}}}, "
            f"got {levels!r}"
        )
    for path in paths:
        try:
            check_can_vary(str(path), "factor", alone=isinstance(levels, list))
        except ValueError as error:
            raise ValueError(f"factor {name}: {error}") from None


def check_can_vary(path: str, role: Literal["factor", "parameter"], alone: bool = True) -> None:
    """Raise ValueError if a setting can be neither a factor of a study nor a parameter of a search.

    `alone` says that the setting changes without others: a label may change together with what it names.
    """
    if path == "seed":
        raise ValueError(f"seed cannot be a {role}; list it under seeds")
    if path.partition(".")[0] == "execution":
        raise ValueError(f"{path} does not change the results and applies to a whole study; set it in base")
    if alone and path in NO_RESULT:
        raise ValueError(f"{path} does not change the results, so all its values would be one and the same run")


def factor_paths(name: str, levels: Levels) -> set[str]:
    """Return the config paths that a factor sets."""
    if isinstance(levels, dict):
        return {path for changes in levels.values() for path in changes}
    return {name}


def packaged_studies() -> list[str]:
    """Return the names of the studies that come with the package."""
    return sorted(path.stem for path in STUDIES_FOLDER.glob("*.yaml"))


def find_study(study: str | Path) -> Path:
    """Return the file of a study, given its path or the name of a packaged study. Raises UserError for any other name."""
    path, packaged = Path(study), STUDIES_FOLDER / f"{study}.yaml"
    if path.is_file() or path.suffix or len(path.parts) > 1:
        return path  # if it does not exist, reading it says so
    if packaged.is_file():
        return packaged
    raise UserError(unknown("study", str(study), packaged_studies()) + "; or the path of a YAML file")


def load_study(
    study: str | Path | StudyConfig,
    overrides: dict[str, Any] | None = None,
    name: str | None = None,
    seeds: int | None = None,
    until_decided: bool = False,
) -> StudyConfig:
    """Read a study from its file, or by the name of a packaged one, and change it as a launch asks.

    `overrides` are set in its base config, by dotted path. `name` replaces its name; `seeds` replaces its seeds by
    0 .. seeds - 1. `until_decided` adds seeds until rows are decided, at most `seeds`. Raises UserError if the study is
    invalid, and for an override of a setting that a factor varies.
    """
    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds: must be at least 1, got {seeds}")
    if seeds is not None and seeds > MAX_CELLS:
        raise UserError(f"--seeds: must be at most {MAX_CELLS}, got {seeds}")
    if isinstance(study, StudyConfig):
        source, document = f"study {study.name}", study.model_dump()
    else:
        source = f"study {find_study(study)}"
        document = read_document(find_study(study), "study")
    changes: dict[str, Any] = {"name": name, "seeds": None if seeds is None else list(range(seeds))}
    if until_decided:
        given = document.get("seeds")
        most = {} if seeds is None else {"max": seeds}
        changes["seeds"] = {"until": "decided"} | (given if isinstance(given, dict) else {}) | most
    document |= {key: value for key, value in changes.items() if value is not None}
    try:
        loaded = StudyConfig.model_validate(document)
    except ValidationError as error:
        raise UserError(f"{source}: {explain(error, StudyConfig)}") from None
    _refuse_varied(loaded, overrides or {})
    base = with_values(loaded.base, overrides or {})
    if isinstance((base.get("teacher") or {}).get("run"), str):  # a file, which the study's record should not need
        base = with_complete_teacher(base)
    return loaded.model_copy(update={"base": base})


def _refuse_varied(study: StudyConfig, overrides: dict[str, Any]) -> None:
    varied = {path for block in study.blocks for name, levels in block.items() for path in factor_paths(name, levels)}
    for path in overrides:
        if path == "seed":
            raise UserError(f"--set seed: study {study.name} has its own seeds; use --seeds N")
        if path in varied:
            raise UserError(f"--set {path}: study {study.name} varies it; select cells with --only, or edit the study")

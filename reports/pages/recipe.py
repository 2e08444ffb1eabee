"""How to make a report again in an empty folder: config files, and the commands that read them.

Teachers come first, then runs outside all studies, then studies, whose runs read the maps of the teachers.
"""

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from reports.loading.collect import NO_STUDY, StoreFrames
from reports.loading.records import StudyRecord
from tiekd.data.teacher_maps import TeacherMaps, open_maps
from tiekd.errors import UserError
from tiekd.store.find_weights import WEIGHTS_FILE
from tiekd.store.run_store import RunStore

FOLDER = "recipe"  # below the report
STORE = "store"  # below the empty folder
_MAX_LINES = 20  # commands of runs without a study, before a loop replaces them
_KEPT = {"--only": 1, "--trials": 1, "--hours": 1, "--warm-start": 0, "--cold-start": 0}  # options of a launch: values


@dataclass
class Recipe:
    """Files by their path below the report, and the commands to run beside a copy of FOLDER.

    teachers: ids of the runs of the store that trained the teachers whose maps were exported from it.
    """

    files: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    teachers: set[str] = field(default_factory=set)

    def add_file(self, name: str, document: Any) -> str:
        """Add a YAML file, and return its path."""
        path = f"{FOLDER}/{name}.yaml"
        self.files[path] = yaml.safe_dump(document, sort_keys=False)
        return path

    def add(self, *words: object) -> None:
        """Add a command, once."""
        self.add_line(shlex.join(map(str, words)))

    def add_line(self, line: str) -> None:
        """Add a line, once."""
        if line not in self.commands:
            self.commands.append(line)

    def add_recipe(self, other: "Recipe") -> None:
        """Add the files and commands of another recipe."""
        self.files |= other.files
        self.teachers |= other.teachers
        for line in other.commands:
            self.add_line(line)


@dataclass(frozen=True)
class _Teacher:
    """The maps that some runs read."""

    name: str
    folder: str  # as a config gives it
    document: dict  # the config of one of the runs

    @property
    def place(self) -> str:
        """The folder of the maps that the recipe makes; never the original one."""
        if not Path(self.folder).is_absolute():
            return self.folder
        return f"maps/{Path(self.folder).name}-{hashlib.sha256(self.folder.encode()).hexdigest()[:6]}"


def make_recipe(collected: StoreFrames, store: RunStore) -> Recipe:
    """Return the recipe of all runs that a report shows, except for the command of the report itself."""
    recipe = Recipe()
    singles = _single_runs(collected, store)
    teachers = _teachers(collected, [document for group in singles.values() for document in group.values()])
    for teacher in teachers.values():
        _add_teacher(recipe, teacher, store)
    _add_single_runs(recipe, singles, teachers)
    for study in collected.studies.values():
        _add_study(recipe, study, teachers)
    return recipe


def report_command(out: Path, studies: list[str], changes: Mapping[str, Any], published: bool) -> str:
    """The command that makes the report again from the store that its recipe makes; `changes` are options of paper tables."""
    argv = ["tiekd", "report", STORE, "--out", out.name or "report", *(f"--study={study}" for study in studies)]
    for name, value in changes.items():
        if name == "only":
            argv += [f"--only={label}={','.join(values)}" for label, values in value.items()]
        else:
            argv.append(f"--{name}={','.join(value) if isinstance(value, list) else value}")
    return shlex.join([*argv, *(["--published"] if published else [])])


def _reads_teacher(collected: StoreFrames) -> list[bool]:
    """Whether each row of `runs` is a run that reads a teacher's maps."""
    return ["teacher.maps" in (settings or ()) for settings in collected.identities["settings"]]


def _single_runs(collected: StoreFrames, store: RunStore) -> dict[str, dict[str, dict]]:
    """The configs of the runs outside all studies by id: of "runs" without a teacher, and of "students"."""
    found: dict[str, dict[str, dict]] = {"runs": {}, "students": {}}
    made_by_studies = {run_id for study in collected.studies.values() for run_id in study.teachers}
    rows = zip(collected.runs["run_id"], collected.runs["study"], _reads_teacher(collected), strict=True)
    for run_id, study, reads_teacher in rows:
        if study == NO_STUDY and run_id not in made_by_studies:
            document = store.run(run_id).document()
            if isinstance(document, dict):
                found["students" if reads_teacher else "runs"][run_id] = document
    return found


def _teachers(collected: StoreFrames, documents: list[dict]) -> dict[str, _Teacher]:
    """The teachers whose maps some runs read, by the absolute folder of the maps. `documents` are those outside all studies."""
    runs = collected.runs.loc[_reads_teacher(collected)].drop_duplicates("teacher.maps")
    planned = [plan.config for study in collected.studies.values() for plan in study.planned]
    of_folder = {_maps_of(document): document for document in (*planned, *documents)}
    return {
        str(Path(folder).absolute()): _Teacher(name, folder, of_folder[folder])
        for name, folder in zip(runs["teacher.name"], runs["teacher.maps"], strict=True)
    }


def _maps_of(document: Any) -> str | None:
    """The folder of the teacher's maps in a config, which any version may have written."""
    teacher = document.get("teacher") if isinstance(document, dict) else None
    return teacher.get("maps") if isinstance(teacher, dict) else None


def _add_teacher(recipe: Recipe, teacher: _Teacher, store: RunStore) -> None:
    """Add the commands that make a teacher's maps, or a comment if they are not known."""
    out = ["--out", teacher.place]
    try:
        maps = open_maps(teacher.folder)
        made_by = maps.manifest.made_by
        name = ["--name", str(made_by["teacher"])]
        stem = f"teachers/{Path(teacher.place).name}"
        if "imported_from" in made_by:
            scale = made_by.get("depth_scale")
            options = ["--relative"] if maps.manifest.relative else [] if scale is None else ["--depth-scale", scale]
            config = recipe.add_file(stem, _portable(teacher.document, {}))
            recipe.add("tiekd", "teacher", "import", config, *made_by["imported_from"], *out, *name, *options)
        elif made_by.get("revision"):
            config = recipe.add_file(stem, _portable(teacher.document, {}))
            recipe.add("tiekd", "teacher", "export", config, "--hf", made_by["model"], *out, *name)
        elif run_id := _run_of(maps, store):
            recipe.teachers.add(run_id)
            config = recipe.add_file(stem, _portable(made_by["config"], {}))
            recipe.add("tiekd", "run", config, "--store", STORE)
            recipe.add("tiekd", "teacher", "export", config, "--store", STORE, *out, *name)
        else:
            recipe.commands.append(f"# {teacher.place}: needs the maps of {teacher.name}, whose network is not in the store")
    except (UserError, KeyError, TypeError, AttributeError):  # maps of another version, or none any more
        recipe.commands.append(f"# {teacher.place}: needs the maps of {teacher.name}, which were in {teacher.folder}")


def _run_of(maps: TeacherMaps, store: RunStore) -> str | None:
    """The run of the store that trained the network that made maps, as its config says; None if there is none."""
    made_by = maps.manifest.made_by
    if "config" not in made_by or made_by["flip_tta"] != made_by["config"]["evaluation"]["flip_tta"]:
        return None
    config = {**made_by["config"], "execution": None}
    lines = [f"  target: {config['loss']['target']}\n", f"  encoder: {config['student']['encoder']}\n"]
    for record in store.runs():
        text = (record.read_file("config.yaml") or b"").decode(errors="replace")
        if not all(line in text for line in lines):  # parsing thousands of configs would take a minute
            continue
        if {**(record.document() or {}), "execution": None} == config:
            weights = record.read_file(WEIGHTS_FILE)
            if weights is not None and hashlib.sha256(weights).hexdigest() == made_by["weights"]:
                return record.run_id
    return None


def _add_single_runs(recipe: Recipe, singles: Mapping[str, Mapping[str, dict]], teachers: Mapping[str, _Teacher]) -> None:
    """Add a command for each run outside all studies, or a loop over the files of many."""
    for folder, documents in singles.items():
        files = [recipe.add_file(f"{folder}/{run_id}", _portable(document, teachers)) for run_id, document in documents.items()]
        if len(files) > _MAX_LINES:
            recipe.commands.append(f"for config in {FOLDER}/{folder}/*.yaml; do tiekd run $config --store {STORE}; done")
        else:
            for file in files:
                recipe.add("tiekd", "run", file, "--store", STORE)


def _add_study(recipe: Recipe, study: StudyRecord, teachers: Mapping[str, _Teacher]) -> None:
    """Add a study as its last launch had it: its file contains what options have set."""
    ignored = ("kind", "tables")  # "tables" was a setting in earlier versions, without an effect
    document = {key: value for key, value in study.document.items() if key not in ignored}
    if study.is_search:
        document["name"] = study.name.removesuffix("-search")
    file = recipe.add_file(f"studies/{study.name}", _portable(document, teachers))
    launches = study.commands or (["tiekd", "search" if study.is_search else "ablate"],)
    space = str((document.get("search") or {}).get("space", ""))
    for launch in launches:
        beside = Path(*launch[2:3]).parent / space  # a space of the user's own; packaged ones are found by name
        if space == Path(space).name and beside.is_file():
            recipe.files[f"{FOLDER}/studies/{space}"] = beside.read_text(encoding="utf-8")
        recipe.add(*launch[:2], file, "--store", STORE, *_kept_options(launch))


def _kept_options(launch: list[str]) -> Iterator[str]:
    """The options of a launch that its study's document does not contain."""
    words = iter(launch[3:])
    for word in words:
        if word in _KEPT:
            yield word
            yield from (next(words) for _ in range(_KEPT[word]))


def _portable(value: Any, teachers: Mapping[str, _Teacher]) -> Any:
    """A config or study with the maps where the recipe makes them, and without packed data."""
    if isinstance(value, dict):
        changed = {key: _portable(part, teachers) for key, part in value.items() if key not in ("packed", "execution.packed")}
        for key in {"maps", "teacher.maps"} & changed.keys():
            changed[key] = next((t.place for path, t in teachers.items() if _is_path_of(changed[key], path)), changed[key])
        return changed
    return [_portable(part, teachers) for part in value] if isinstance(value, list) else value


def _is_path_of(given: Any, path: str) -> bool:
    """Whether a path of a config leads to an absolute path, from the folder of the launch if it is relative."""
    return isinstance(given, str) and (path == given or path.endswith(f"/{given.removeprefix('./')}"))

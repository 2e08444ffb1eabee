"""ro-crate-metadata.json: what a bundle contains, by the RO-Crate specification 1.1 (https://w3id.org/ro/crate/1.1)."""

import mimetypes
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reports.loading.collect import StoreFrames
from tiekd.config.specs import DATASETS
from tiekd.store.provenance import code_state

METADATA = "ro-crate-metadata.json"
_SPECIFICATION = "https://w3id.org/ro/crate/1.1"
_TYPES = {".parquet": "application/vnd.apache.parquet", ".tex": "application/x-tex", ".md": "text/markdown"}
_FOLDERS = {
    "report/": "Tables, figures, and the recipe that computes everything again. Every number of its tables links to "
    "its runs in report/runs.md, which are in store/runs/.",
    "store/": "The run store: the study as it was launched, and for each run its config, status, metrics, provenance, and the "
    "metrics of each epoch and test image. `tiekd report` makes the tables from it.",
    "teachers/": "The runs that trained the teachers, as a run store.",
}

Entity = dict[str, Any]


def crate_metadata(study: str, frames: StoreFrames, folder: Path, files: Sequence[str], date: str, lock: str) -> Entity:
    """Describe a bundle of the `files` in `folder`.

    date: when the last run was updated, as ISO 8601. lock: which runs used constraints.txt, in words.
    """
    folders = [name for name in _FOLDERS if any(file.startswith(name) for file in files)]
    listed = [file for file in files if not file.startswith(("store/", "teachers/"))]
    datasets = [name for name in sorted(frames.runs["data.dataset"].dropna().unique()) if name in DATASETS]
    inputs = _inputs(frames)
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": frames.studies[study].title or study,
        "description": f"The study {study}: its report, the results of its runs, and what makes them again. `tiekd report` "
        "reads the zip file of this folder. Weights, images and depth maps are not included.",
        "datePublished": date,
        "license": _references(f"#license-{name}" for name in datasets) or "not known: no run states its data set",
        "hasPart": _references([*folders, *map(quote, listed)]),
        "mentions": _references(["#report", *(f"#data-{name}" for name in datasets)]),
    }
    made = {
        "@id": "#report",
        "@type": "CreateAction",
        "name": f"tiekd report store --study {study}",
        "instrument": {"@id": "#tiekd"},
        "object": _references([*(name for name in folders if name != "report/"), *(each["@id"] for each in inputs)]),
        "result": {"@id": "report/"},
    }
    software = {"@id": "#tiekd", "@type": "SoftwareApplication", "name": "tiekd", "softwareVersion": version("tiekd")}
    if commit := code_state()["git_commit"]:
        software["identifier"] = f"commit {commit}" + (" with uncommitted changes" if code_state()["dirty"] else "")
    graph: list[Entity] = [
        {"@id": METADATA, "@type": "CreativeWork", "conformsTo": {"@id": _SPECIFICATION}, "about": {"@id": "./"}},
        root,
        *({"@id": name, "@type": "Dataset", "name": name, "description": _FOLDERS[name]} for name in folders),
        *(_file(name, (folder / name).stat().st_size, lock) for name in listed),
        *(entity for name in datasets for entity in _data(name)),
        made,
        software,
        *inputs,
    ]
    return {"@context": f"{_SPECIFICATION}/context", "@graph": graph}


def _references(names: Any) -> list[Entity]:
    return [{"@id": name} for name in names]


def _file(name: str, size: int, lock: str) -> Entity:
    kind = _TYPES.get(Path(name).suffix) or mimetypes.guess_type(name, strict=False)[0] or "text/plain"
    entity = {"@id": quote(name), "@type": "File", "name": name, "contentSize": str(size), "encodingFormat": kind}
    return entity | ({"description": f"The locked versions of all packages. {lock}"} if name == "constraints.txt" else {})


def _data(name: str) -> list[Entity]:
    """A data set, which is not included, and its license."""
    spec = DATASETS[name]
    about = {"@id": f"#license-{name}", "@type": "CreativeWork", "name": spec.license.name}
    return [
        {"@id": f"#data-{name}", "@type": "CreativeWork", "name": spec.label, "license": {"@id": f"#license-{name}"}},
        about | {"description": f"License of networks trained on {spec.label}: {spec.license.text}"},
    ]


def _inputs(frames: StoreFrames) -> list[Entity]:
    """The digests of the inputs that the runs have read."""
    found = Counter(item for each in frames.provenance.values() for item in each.get("inputs", {}).items())
    return [
        {
            "@id": f"#input-{quote(name, safe='')}-{quote(digest, safe='')}",
            "@type": "PropertyValue",
            "name": f"digest of {name}",
            "value": digest,
            "description": f"read by {n} run{'s' * (n > 1)}",
        }
        for (name, digest), n in sorted(found.items())
    ]

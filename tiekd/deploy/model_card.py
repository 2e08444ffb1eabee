"""The model card of a network: description, usage, results and limits, from the files of its run."""

import statistics
from collections.abc import Iterable
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from tiekd.config import RunConfig
from tiekd.config.labels import METRICS, labels
from tiekd.store.documents import Metrics, Summary
from tiekd.store.run_store import RunRecord

CODE_LICENSE = "Apache-2.0"
_CITATION = """@article{tiekd2024,
  title   = {{TIE-KD}: Teacher-Independent and Explainable Knowledge Distillation for Monocular Depth Estimation},
  journal = {Image and Vision Computing},
  year    = {2024},
  note    = {arXiv:2402.14340}
}"""


_USAGE = """```python
from tiekd.deploy.hub import DepthModel

student = DepthModel.from_pretrained("THIS_MODEL")  # its name on the hub, or a folder
depth = student.predict("photo.jpg").depth  # [H, W] m, for an image of any size
```

`student(batch)` takes RGB tensors [B, 3, H, W] in 0..1 and returns `depth` and `dpm_logits`. `tiekd predict FOLDER IMAGE...
--out DIR` writes depth PNGs, color images and point clouds, `tiekd export FOLDER --out M.onnx` an ONNX file."""

_NO_RESULTS = "These weights were exported without their run, so there are no results."


def build_card(config: RunConfig, record: RunRecord | None) -> str:
    """Write the card as Markdown with the hub's metadata. Without a run in a store, it has no results."""
    summary = record.summary() if record else None
    names = labels(config)
    title = " ".join(filter(None, (names["method"], names["backbone"], names["dataset"])))
    parts = [
        f"# {title}",
        _description(config),
        "## Use",
        _USAGE,
        "## Evaluation",
        _evaluation(config, record, summary) if record and summary else _NO_RESULTS,
        "## Training",
        _training(config, record),
        "## Limits",
        _limits(config),
        "## License",
        f"Code: {CODE_LICENSE}. Weights: {config.data.spec.license.text}. Check the terms of the teacher and of the pretrained "
        "encoder before you redistribute them.",
        "## Citation",
        f"```bibtex\n{_CITATION}\n```",
    ]
    metadata = _metadata(config, title, summary)
    return ModelCard(f"---\n{metadata.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n").content


def _metadata(config: RunConfig, title: str, summary: Summary | None) -> ModelCardData:
    optional: dict[str, Any] = {}
    if config.data.spec.license.name == "other":
        optional["license_name"] = "see-the-card"
    if summary:
        optional["eval_results"] = [
            EvalResult(
                task_type="depth-estimation",
                dataset_type=config.data.dataset,
                dataset_name=f"{config.data.dataset}, protocol {summary.get('protocol', 'unknown')}",
                metric_type=metric,
                metric_value=value,
            )
            for metric in METRICS
            if (value := summary["metrics"].get(metric)) is not None
        ]
    return ModelCardData(
        license=config.data.spec.license.name,
        library_name="tiekd",
        pipeline_tag="depth-estimation",
        tags=["monocular-depth", "knowledge-distillation", config.data.dataset],
        model_name=title,
        **optional,
    )


def _description(config: RunConfig) -> str:
    data = config.data
    output = {
        "dpm": f"For each pixel a distribution over {config.bins.n_bins} depth bins ({config.bins.spacing} spacing); its "
        "expectation is the depth.",
        "regression": "One depth per pixel.",
        "adaptive_bins": f"Depth over {config.bins.n_bins} bins that the network chooses for each image.",
    }[config.student.head]
    trained = "trained"
    if "teacher" in config.loss.targets:
        trained = f"distilled from the depth maps of the teacher `{labels(config)['teacher']}`"
    return (
        f"Metric depth from a single image: the encoder `{config.student.encoder}` with a decoder, {trained} on "
        f"`{data.dataset}`. {output} Depth lies between {data.min_depth:g} and {data.max_depth:g} m."
    )


def _evaluation(config: RunConfig, record: RunRecord, summary: Summary) -> str:
    """The run's own metrics, and mean and spread over the runs that differ only in the seed."""
    cell = {config.seed: summary["metrics"]} | _other_seeds(record)
    without = summary.get("n_images_without_ground_truth")
    lines = [
        f"`{config.data.dataset}`, {summary.get('n_images', 'unknown')} test images, "
        f"protocol `{summary.get('protocol', 'unknown')}`, "
        f"{'with' if config.evaluation.flip_tta else 'without'} flip averaging"
        + (f"; {without} further images without ground truth are not averaged." if without else "."),
        "",
        f"| metric | this model (seed {config.seed}) | mean ± standard deviation of {_seeds(cell)} |",
        "|---|---|---|",
    ]
    for metric in METRICS:
        own = summary["metrics"].get(metric)
        values = [value for metrics in cell.values() if (value := metrics.get(metric)) is not None]
        if own is None:
            continue
        spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        lines.append(f"| {metric} | {own:.4f} | {statistics.fmean(values):.4f}{spread} |")
    if len(cell) == 1:
        lines += ["", "One seed does not show the spread between trainings."]
    return "\n".join(lines)


def _seeds(cell: Iterable[int]) -> str:
    seeds = sorted(cell)
    return f"{len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))})"


def _other_seeds(record: RunRecord) -> dict[int, Metrics]:
    """The metrics of the store's finished runs whose config differs only in the seed."""
    own, store = _without_seed(record.document() or {}), record.store
    same = [
        (document["seed"], other)
        for other, document in store.read_each(lambda run: (run, run.document()), store.runs())
        if document and isinstance(document.get("seed"), int) and _without_seed(document) == own
    ]
    found = {seed: other.metrics() for seed, other in same if other.status().state == "done"}
    return {seed: metrics for seed, metrics in found.items() if metrics}


def _without_seed(document: dict[str, Any]) -> dict[str, Any]:
    return {section: value for section, value in document.items() if section not in ("seed", "execution")}


def _training(config: RunConfig, record: RunRecord | None) -> str:
    optim, names = config.optim, labels(config)
    facts = {
        "Run": f"`{record.run_id}`" if record else "unknown",
        "Method": names["method"],
        "Loss": f"{names['loss']}, against {_targets(config)}",
        "Teacher": names["teacher"] or "none",
        "Recipe": f"{optim.epochs} epochs, batch {optim.batch_size}, peak learning rate {optim.lr:g}, {optim.precision}",
        "Encoder": "initialized with timm's ImageNet weights" if config.student.pretrained else "initialized randomly",
        "Seed": str(config.seed),
    }
    origin = record.provenance() if record else None
    if origin:
        changed = f", with uncommitted changes {origin['dirty']}" if origin.get("dirty") else ""
        facts["Code"] = f"commit `{origin.get('git_commit') or 'unknown'}`{changed}"
        facts["Versions"] = ", ".join(f"{name} {version}" for name, version in origin.get("versions", {}).items() if version)
        if lock := origin.get("lock"):
            facts["Lock, and installed versions that differ from it"] = ", ".join(map(" ".join, lock.items()))
        facts["Inputs"] = ", ".join(f"{name} `{digest[:16]}`" for name, digest in origin.get("inputs", {}).items())
        device = origin.get("hardware", {}).get("device", "unknown")
        facts["Cost"] = f"{origin.get('device_seconds', 0) / 3600:.2f} device-hours on {device}"
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _targets(config: RunConfig) -> str:
    names = {"teacher": "the teacher", "ground_truth": "ground truth"}
    return " and ".join(name for target, name in names.items() if target in config.loss.targets)


def _limits(config: RunConfig) -> str:
    rendered = " It was trained on rendered scenes and does not work on photographs." if config.data.rendered else ""
    height, width = config.data.evaluation_size
    return (
        f"Depth is only metric for cameras like those of `{config.data.dataset}`: frames of {width} x {height} pixels with "
        f"their focal length. Other cameras change the scale. No depth beyond {config.data.max_depth:g} m is predicted. "
        f"Depth edges are blurred. Do not use it where an error can cause harm.{rendered}"
    )

"""The training loop, the same in every runtime: train a student on its target, validate it, report each epoch."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tiekd.config import OptimConfig, RunConfig
from tiekd.data import FrameSource, Inputs, open_inputs
from tiekd.data.cache.in_memory import cache_inputs
from tiekd.data.dataset import DepthDataset, EpochSampler, derive_seed, shard
from tiekd.data.transforms import TrainTransform
from tiekd.distill.optim import apply_schedule, build_optimizer
from tiekd.distill.runtime import CHECK_EVERY, LocalRuntime, MetricRow, Runtime
from tiekd.errors import DivergedError
from tiekd.inference.evaluate import evaluate_protocols, is_constant, require_finite, without_protocol
from tiekd.losses import build_loss
from tiekd.losses.combine import IMAGE, AllSum, DistillLoss, single_process_sum
from tiekd.metrics import mean_metrics
from tiekd.models.prediction import Prediction
from tiekd.models.registry import build_network, count_parameters

EpochPart = dict[str, Any]  # of an epoch that is not complete: steps, sums over them, random states of the ranks, seconds


@dataclass(frozen=True)
class DistillResult:
    """The outcome of a run."""

    student: nn.Module
    images: list[MetricRow]  # one row per test image
    metrics: dict[str, float]  # means over the test images
    constant: bool  # whether the student predicts the same depth everywhere
    test: FrameSource
    also: list[MetricRow] = field(default_factory=list)  # one row per protocol of evaluation.also and test image


def distill(config: RunConfig, runtime: Runtime | None = None) -> DistillResult:
    """Train the student of a run and evaluate it on the test frames, by default in this process without a store.

    Resumes from the runtime's checkpoint if there is one; the result equals that of an uninterrupted run. Raises DivergedError
    at the first step whose loss or gradient is not finite.
    """
    runtime = runtime or LocalRuntime(config.execution)
    torch.manual_seed(config.seed)
    inputs = cache_inputs(open_inputs(config), config.execution.cache_gb)
    loader = train_loader(inputs, config, runtime)
    loss = build_loss(config)
    student = build_network(config).to(runtime.device)
    optimizer = build_optimizer(student, config.optim)

    epochs: list[MetricRow] = []
    part: EpochPart = {}  # of the next epoch, if the training was interrupted within it

    def restore(state: dict[str, Any]) -> None:
        check_state(state, student, optimizer)
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        epochs.extend(state["epochs"])
        part.update(state.get("part") or {})

    def state(part: EpochPart | None = None) -> dict[str, Any]:
        return {"student": student.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epochs, "part": part}

    runtime.resume(restore)
    model = runtime.wrap(student)
    if config.execution.compile:  # around the distributed wrapper, which PyTorch supports; `student` stays uncompiled
        model = cast(nn.Module, torch.compile(model))

    images: list[MetricRow] = []
    also: list[MetricRow] = []
    for epoch in range(len(epochs) + 1, config.optim.epochs + 1):
        started = time.perf_counter() - part.get("seconds", 0.0)

        def save(part: EpochPart, started: float = started) -> None:
            runtime.checkpoint(state({**part, "seconds": time.perf_counter() - started}))

        row = train_epoch(epoch, model, loss, loader, optimizer, config.optim, runtime, part, save)
        part.clear()
        if epoch % config.evaluation.every == 0 or epoch == config.optim.epochs:
            images, also = validate(student, config, inputs.test, runtime, last=epoch == config.optim.epochs)
            row |= mean_metrics(images)
        epochs.append(row | {"seconds": time.perf_counter() - started})
        runtime.report(epochs, state())

    if not images:  # the training was interrupted after its last epoch
        images, also = validate(student, config, inputs.test, runtime, last=True)
    return DistillResult(student, images, mean_metrics(images), is_constant(images), inputs.test, also)


def check_state(state: dict[str, Any], student: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Raise an error unless the state fits, before anything is changed: a student restored in part would be neither."""
    wanted, found = ({name: t.shape for name, t in s.items()} for s in (student.state_dict(), state["student"]))
    if wanted != found:
        raise ValueError("the checkpoint is of another network")
    parts = [[len(group["params"]) for group in s["param_groups"]] for s in (optimizer.state_dict(), state["optimizer"])]
    if parts[0] != parts[1] or not isinstance(state["optimizer"]["state"], dict):
        raise ValueError("the checkpoint is of another optimizer")
    if [row["epoch"] for row in state["epochs"]] != list(range(1, len(state["epochs"]) + 1)):
        raise ValueError("the checkpoint lacks epochs")


def train_loader(inputs: Inputs, config: RunConfig, runtime: Runtime) -> DataLoader:
    """Load this rank's share of each global batch. The random augmentation depends on seed, epoch and frame only."""
    transform = TrainTransform(config.augment, config.data.train_crop, config.quirks)
    dataset = DepthDataset(inputs.train, inputs.maps, transform, config.seed)
    sampler = EpochSampler(len(dataset), config.optim.batch_size, config.seed, runtime.rank, runtime.world_size)
    workers = config.execution.loader_processes
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=runtime.device.type == "cuda",
        generator=torch.Generator(),  # not the global generator, which initializes the student
    )


def train_epoch(
    epoch: int,
    model: nn.Module,
    loss: DistillLoss,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    optim: OptimConfig,
    runtime: Runtime,
    part: EpochPart,
    save: Callable[[EpochPart], None],
) -> MetricRow:
    """Train on all frames once. Returns the epoch's row: mean loss and terms, last learning rate.

    part: what has been computed of the epoch; empty if it begins. save: called when the runtime wants to keep a new part.
    """
    sampler = loader.batch_sampler
    assert isinstance(sampler, EpochSampler)
    done = part.get("steps", 0)
    sampler.set_epoch(epoch, skip=done)
    # Random layers (dropout) depend on the epoch and not on earlier draws, so that a resumed run draws the same numbers.
    torch.manual_seed(derive_seed(sampler.seed, epoch, sampler.rank, *([done] if done else [])))
    set_random_state(part, runtime)
    model.train()
    steps_per_epoch, steps = len(loader), len(loader) * optim.epochs
    first_step = (epoch - 1) * steps_per_epoch
    log = StepLog(first_step, done, part.get("sums", {}))
    for step, batch in enumerate(loader, start=first_step + done):
        lr = apply_schedule(optimizer, step, steps, optim)
        log.add(train_step(model, loss, batch, optimizer, optim, runtime), lr)
        runtime.report_step(step + 1, steps)
        done = step + 1 - first_step
        if done < steps_per_epoch and runtime.checkpoint_due(step + 1):
            save({"steps": done, "sums": log.sums(), "random": random_states(runtime)})
    means = log.means()
    terms = {f"part_{name}": means[name] for name in loss.terms}
    return {"epoch": epoch, "step": epoch * steps_per_epoch, "lr": lr, "loss": means["loss"], **terms}


def random_states(runtime: Runtime) -> list[dict[str, Tensor]]:
    """Return the state of each rank's random numbers, by device."""
    own = {"cpu": torch.get_rng_state()}
    if runtime.device.type == "cuda":
        own["cuda"] = torch.cuda.get_rng_state(runtime.device)
    return runtime.gather([own])


def set_random_state(part: EpochPart, runtime: Runtime) -> None:
    """Continue the random numbers of an interrupted epoch, unless it was computed by another number of ranks or device."""
    states = part.get("random", [])
    own = states[runtime.rank] if len(states) == runtime.world_size else {}
    if "cpu" in own and ("cuda" in own) == (runtime.device.type == "cuda"):
        torch.set_rng_state(own["cpu"])
        if "cuda" in own:
            torch.cuda.set_rng_state(own["cuda"], runtime.device)


def train_step(
    model: nn.Module,
    loss: DistillLoss,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    optim: OptimConfig,
    runtime: Runtime,
) -> dict[str, Tensor]:
    """Forward, backward, clip, update. Returns the loss, its terms and the norm of the gradient, on the device.

    batch: image [B, 3, H, W], and what the loss reads of depth_teacher and depth_gt, [B, 1, H, W] m.
    """
    device = runtime.device
    image = batch["image"].to(device, non_blocking=True)
    targets = {name: image if name == IMAGE else batch[name].to(device, non_blocking=True) for name in loss.targets}
    optimizer.zero_grad(set_to_none=True)  # before the forward pass, which can then reuse the memory of the gradients
    with torch.autocast(device.type, torch.bfloat16, enabled=optim.precision == "bf16"):
        prediction = model(image)
    values = evaluate_loss(loss, prediction, targets, runtime.all_sum)
    del prediction  # holds large features, which the end of the backward pass does not need
    values["loss"].backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), optim.clip_grad_norm)
    optimizer.step()
    return {name: value.detach() for name, value in values.items()} | {"gradient": norm.detach()}


def evaluate_loss(
    loss: DistillLoss, prediction: Prediction, targets: Mapping[str, Tensor], all_sum: AllSum = single_process_sum
) -> dict[str, Tensor]:
    """Evaluate each term, unweighted, under its name, and their weighted sum as "loss".

    targets: as far as the loss reads them, depth_teacher and depth_gt, [B, 1, H, W] m, and image [B, 3, H, W].
    """
    masked = {name: loss.mask(target) for name, target in targets.items() if name in loss.targets and name != IMAGE}
    if IMAGE in loss.targets:
        masked[IMAGE] = targets[IMAGE], torch.ones_like(targets[IMAGE], dtype=torch.bool)
    values = {name: term(prediction, *masked[target], all_sum) for name, (_, term, target) in loss.terms.items()}
    first, *others = (loss.terms[name].weight * value for name, value in values.items())
    return {**values, "loss": sum(others, start=first)}


def validate(
    student: nn.Module, config: RunConfig, test: FrameSource, runtime: Runtime, last: bool
) -> tuple[list[MetricRow], list[MetricRow]]:
    """Evaluate each test image on one rank. Returns the rows of all ranks in the data set's order.

    The rows of the run's protocol, and with `last` also those of the other protocols.
    """
    protocols = dict(list(config.evaluation.specs.items())[: None if last else 1])
    share = shard(len(test), runtime.rank, runtime.world_size)
    found = evaluate_protocols(student, config, test, runtime.device, share, protocols)
    rows = runtime.gather([row for rows in found for row in rows])
    require_finite(rows)
    order, position = list(protocols), {key: index for index, key in enumerate(test.keys)}
    rows.sort(key=lambda row: (order.index(row["protocol"]), position[row["image"]]))
    return [without_protocol(row) for row in rows[: len(test)]], rows[len(test) :]


class StepLog:
    """Means over an epoch's steps. Values stay on the device until they are checked, every CHECK_EVERY steps."""

    def __init__(self, first_step: int, n_steps: int = 0, sums: dict[str, float] | None = None):
        self._first_step = first_step
        self._pending: list[tuple[dict[str, Tensor], float]] = []
        self._sums: dict[str, float] = dict(sums or {})
        self._n_steps = n_steps

    def add(self, values: dict[str, Tensor], lr: float) -> None:
        """Add a step. Raises DivergedError if this or an earlier one is not finite."""
        self._pending.append((values, lr))
        if len(self._pending) == CHECK_EVERY:
            self._check()

    def sums(self) -> dict[str, float]:
        """The sums over the steps so far. Raises DivergedError if one is not finite."""
        self._check()
        return dict(self._sums)

    def means(self) -> dict[str, float]:
        """Raises DivergedError if a step is not finite."""
        self._check()
        return {name: total / self._n_steps for name, total in self._sums.items()}

    def _check(self) -> None:
        if not self._pending:
            return
        names = list(self._pending[0][0])
        table = torch.stack([torch.stack([values[name].float() for name in names]) for values, _ in self._pending])
        for row, (_, lr) in zip(table.tolist(), self._pending, strict=True):
            values = dict(zip(names, row, strict=True))
            self._n_steps += 1
            if not all(map(math.isfinite, row)):
                listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
                raise DivergedError(f"not finite at step {self._first_step + self._n_steps}: {listed}; learning rate {lr:.3g}")
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        self._pending.clear()


def summarize(config: RunConfig, result: DistillResult) -> dict[str, Any]:
    """The content of summary.json: protocol, images, metrics and size."""
    n_without_ground_truth = sum(row["n_valid"] == 0 for row in result.images)
    n_images = len(result.images) - n_without_ground_truth
    note = config.data.spec.count_note(n_images)
    return {
        "protocol": config.evaluation.protocol,
        "n_images": n_images,
        "n_images_without_ground_truth": n_without_ground_truth,
        "metrics": result.metrics,
        "epochs": config.optim.epochs,
        "parameters": count_parameters(result.student),
        **({"also": list(dict.fromkeys(row["protocol"] for row in result.also))} if result.also else {}),
        **({"note": note} if note else {}),
    }

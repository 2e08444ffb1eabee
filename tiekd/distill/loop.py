"""The loop: from a config to a trained, evaluated student, the same wherever it runs."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tiekd.config import RunConfig
from tiekd.data import FrameSource
from tiekd.data.cache.in_memory import cached_inputs
from tiekd.data.dataset import DepthDataset, EpochSampler, derive_seed, shard
from tiekd.distill.optim import apply_schedule, build_optimizer
from tiekd.distill.runtime import LocalRuntime, MetricRow, Runtime
from tiekd.errors import DivergedError
from tiekd.inference.evaluate import evaluate, is_constant
from tiekd.losses import build_loss
from tiekd.losses.combine import DistillLoss
from tiekd.metrics import mean_metrics
from tiekd.models.registry import build_network, count_parameters

CHECK_EVERY = 50  # steps between looks at the losses: each look waits for the device


@dataclass(frozen=True)
class DistillResult:
    """What a run leaves: the student, a row per test image, and whether it predicts one depth everywhere."""

    student: nn.Module
    images: list[MetricRow]
    metrics: dict[str, float]
    constant: bool


def distill(config: RunConfig, runtime: Runtime | None = None) -> DistillResult:
    """Train the student of `config` on its target and evaluate it on the test frames; by default in this process alone.

    Continues from the runtime's checkpoint when there is one, exactly as if it had never stopped. Raises DivergedError at the
    first step whose loss or gradient is not finite.
    """
    runtime = runtime or LocalRuntime(config.execution)
    torch.manual_seed(config.seed)
    loader = train_loader(config, runtime)
    test = cached_inputs(config).test
    loss = build_loss(config)
    student = build_network(config).to(runtime.device)
    optimizer = build_optimizer(student, config.optim)

    epochs: list[MetricRow] = []
    if state := runtime.resume():
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        epochs = state["epochs"]
    model = runtime.wrap(student)
    if config.execution.compile:  # around the wrapper, for which PyTorch cuts the graph; what is validated and stored is not
        model = torch.compile(model)

    images: list[MetricRow] = []
    for epoch in range(len(epochs) + 1, config.optim.epochs + 1):
        started = time.perf_counter()
        row = train_epoch(epoch, model, loss, loader, optimizer, config, runtime)
        if epoch % config.evaluation.every == 0 or epoch == config.optim.epochs:
            images = validate(student, config, test, runtime)
            row |= mean_metrics(images)
        epochs.append(row | {"seconds": time.perf_counter() - started})
        runtime.report(epochs, {"student": student.state_dict(), "optimizer": optimizer.state_dict(), "epochs": epochs})

    images = images or validate(student, config, test, runtime)
    return DistillResult(student, images, mean_metrics(images), is_constant(images))


def train_loader(config: RunConfig, runtime: Runtime) -> DataLoader:
    """This rank's share of each global batch; what is drawn depends on seed, epoch and frame alone."""
    train, _, maps = cached_inputs(config)
    dataset = DepthDataset(train, maps, config.augment, config.data.train_crop, config.seed, config.quirks)
    sampler = EpochSampler(len(train), config.optim.batch_size, config.seed, runtime.rank, runtime.world_size)
    workers = config.execution.data_workers
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=runtime.device.type == "cuda",
        generator=torch.Generator(),  # or the loader would draw from the one that seeds the student's layers
    )


def train_epoch(
    epoch: int,
    model: nn.Module,
    loss: DistillLoss,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    runtime: Runtime,
) -> MetricRow:
    """One pass over the training frames. Returns the epoch's row: mean loss and parts, last learning rate."""
    loader.batch_sampler.set_epoch(epoch)
    # Layers that draw (dropout) depend on the epoch and not on what ran before, so a resumed run draws the same.
    torch.manual_seed(derive_seed(config.seed, epoch, runtime.rank))
    model.train()
    per_epoch, steps = len(loader), len(loader) * config.optim.epochs
    log = StepLog((epoch - 1) * per_epoch)
    for step, batch in enumerate(loader, start=(epoch - 1) * per_epoch):
        lr = apply_schedule(optimizer, step, steps, config.optim)
        log.add(train_step(model, loss, batch, optimizer, config, runtime), lr)
        runtime.report_step(step + 1, steps)
    means = log.means()
    parts = {f"part_{name}": means[name] for name in loss.terms}
    return {"epoch": epoch, "step": epoch * per_epoch, "lr": lr, "loss": means["loss"], **parts}


def train_step(
    model: nn.Module,
    loss: DistillLoss,
    batch: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    config: RunConfig,
    runtime: Runtime,
) -> dict[str, Tensor]:
    """Forward, backward, clip, update. Returns the loss, its parts and the gradient's norm, still on the device."""
    device = runtime.device
    image = batch["image"].to(device, non_blocking=True)
    target = batch["depth_teacher" if config.reads_teacher else "depth_gt"].to(device, non_blocking=True)
    optimizer.zero_grad(set_to_none=True)  # first, so that activations may have the last gradients' memory
    with torch.autocast(device.type, torch.bfloat16, enabled=config.optim.precision == "bf16"):
        prediction = model(image)
    parts = loss(prediction, target, runtime.all_sum)
    del prediction  # its features are large, and not needed all the way back
    parts["loss"].backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_grad_norm)
    optimizer.step()
    return {name: value.detach() for name, value in parts.items()} | {"gradient": norm.detach()}


def validate(student: nn.Module, config: RunConfig, test: FrameSource, runtime: Runtime) -> list[MetricRow]:
    """A row per test image, in the data set's order; each rank takes its share, none twice."""
    share = shard(len(test), runtime.rank, runtime.world_size)
    rows = runtime.gather(evaluate(student, config, test, runtime.device, share))
    for row in rows:
        if row["n_valid"] and not math.isfinite(row["abs_rel"]):
            raise DivergedError(f"the prediction for test image {row['image']} is not finite")
    position = {key: index for index, key in enumerate(test.keys)}
    return sorted(rows, key=lambda row: position[row["image"]])


class StepLog:
    """An epoch's losses, kept on the device and looked at now and then."""

    def __init__(self, first_step: int):
        self._first = first_step
        self._pending: list[tuple[dict[str, Tensor], float]] = []
        self._sums: dict[str, float] = {}
        self._steps = 0

    def add(self, values: dict[str, Tensor], lr: float) -> None:
        self._pending.append((values, lr))
        if len(self._pending) == CHECK_EVERY:
            self._look()

    def means(self) -> dict[str, float]:
        self._look()
        return {name: total / self._steps for name, total in self._sums.items()}

    def _look(self) -> None:
        if not self._pending:
            return
        names = list(self._pending[0][0])
        table = torch.stack([torch.stack([values[name].float() for name in names]) for values, _ in self._pending])
        for row, (_, lr) in zip(table.tolist(), self._pending, strict=True):
            values = dict(zip(names, row, strict=True))
            self._steps += 1
            if not all(map(math.isfinite, row)):
                listed = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
                raise DivergedError(f"not finite at step {self._first + self._steps}: {listed}; learning rate {lr:.3g}")
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
        self._pending.clear()


def summarize(config: RunConfig, result: DistillResult) -> dict[str, Any]:
    """The numbers of a run's summary: protocol, images, metrics and size."""
    unmeasured = sum(row["n_valid"] == 0 for row in result.images)
    return {
        "protocol": config.evaluation.protocol,
        "n_images": len(result.images) - unmeasured,
        "n_images_without_ground_truth": unmeasured,
        "metrics": result.metrics,
        "epochs": config.optim.epochs,
        "parameters": count_parameters(result.student),
    }

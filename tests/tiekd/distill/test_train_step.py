"""What a training step may cost, and that what makes it fast leaves the numbers alone."""

import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tiekd.bins import expected_depth
from tiekd.config import RunConfig, build, override
from tiekd.config.specs import LOSSES
from tiekd.distill.loop import train_step
from tiekd.distill.optim import apply_schedule, build_optimizer
from tiekd.distill.runtime import LocalRuntime
from tiekd.losses import build_loss
from tiekd.models.prediction import Prediction
from tiekd.models.registry import build_network
from tiekd.store.run_store import RunStore

SIZE = (48, 64)
STEPS = 24


def config_of(loss: str, n_bins: int = 16, **optim) -> RunConfig:
    student = "adabins" if loss == "si_chamfer" else "tiny"
    document = {"data": {"dataset": "synthetic-indoor"}, "teacher": {"name": "made", "maps": "maps"}}
    document |= {"student": {"name": student}, "bins": {"n_bins": n_bins}, "execution": {"device": "cpu"}}
    return build(document | {"loss": {"name": loss, "target": "teacher"}, "optim": {"lr": 3e-3, **optim}})


def batches(count: int, dtype: torch.dtype = torch.float32) -> list[dict[str, Tensor]]:
    """Images of noise, and smooth depths of 1 to 9 m of which some pixels are not known."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(*(torch.linspace(0, 1, n, dtype=dtype) for n in SIZE), indexing="ij")
    made = []
    for number in range(count):
        depth = (1 + 5 * rows + 3 * (columns - number / count).abs()).expand(2, 1, *SIZE).clone()
        depth[0, 0, :2] = 0
        image = torch.randn(2, 3, *SIZE, generator=generator, dtype=torch.float64).to(dtype)
        made.append({"image": image, "depth_teacher": depth})
    return made


@pytest.fixture
def runtime(tmp_path) -> LocalRuntime:
    return LocalRuntime(config_of("si").execution, RunStore(tmp_path).run("none"))


class PlainModel(nn.Module):
    """The student with neither its order of memory nor its fused head: the formulas of `tiekd/bins.py` under autograd."""

    def __init__(self, student: nn.Module):
        super().__init__()
        self.student = student

    def forward(self, image: Tensor) -> Prediction:
        features = self.student.decoder(self.student.encoder(image), image.shape[-2:])
        assert features.is_contiguous()
        logits = self.student.head.logits(features)
        return Prediction(expected_depth(torch.softmax(logits, dim=1), self.student.head.bins), logits)


def curve(config: RunConfig, runtime: LocalRuntime, dtype: torch.dtype, plain: bool) -> list[float]:
    """The losses of a training from the config's seed."""
    torch.manual_seed(config.seed)
    student = build_network(config).to(dtype).train()
    optimizer = build_optimizer(student, config.optim)
    if plain:
        for group in optimizer.param_groups:
            group.update(fused=False, foreach=False)
    model, loss, losses = PlainModel(student) if plain else student, build_loss(config), []
    for step, batch in enumerate(batches(STEPS, dtype)):
        apply_schedule(optimizer, step, STEPS, config.optim)
        losses.append(train_step(model, loss, batch, optimizer, config.optim, runtime)["loss"].item())
    return losses


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)], ids=["float32", "float64"])
def test_a_seed_trains_along_one_curve_with_every_fast_path_and_with_none(runtime, dtype, tolerance):
    config = override(config_of("tie_kd"), {"loss.sigma": 0.5})
    fast, plain = (curve(config, runtime, dtype, plain) for plain in (False, True))
    assert fast == pytest.approx(plain, rel=tolerance)
    assert plain[-1] < 0.7 * plain[0]


# -- the host and the device ----------------------------------------------------------------------------------------------


class NeverWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for the device: a value or a shape that depends on a tensor's content."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        name = operation.name().removeprefix("aten::").split(".")[0]
        assert not name.startswith(self.WAITS), f"{name} waits for the device"
        if name.startswith("index"):
            indices = [leaf for leaf in tree_leaves(arguments[1:]) if isinstance(leaf, Tensor)]
            assert not any(i.dtype == torch.bool for i in indices[:1]), f"{name} by a mask waits for the device"
        return operation(*arguments, **(options or {}))


class Given(nn.Module):
    """A network of which only the outputs matter: depth and bins of each image."""

    def __init__(self):
        super().__init__()
        self.depth, self.centers = nn.Parameter(torch.full((2, 1, *SIZE), 3.0)), nn.Parameter(torch.rand(2, 16) * 9)

    def forward(self, image: Tensor) -> Prediction:
        return Prediction(self.depth, bin_centers=self.centers)


@pytest.mark.parametrize("loss", [name for name, spec in LOSSES.items() if not spec.of_image])
def test_no_step_waits_for_the_device(runtime, loss):
    config = config_of(loss)
    network = Given() if loss == "si_chamfer" else build_network(config)
    optimizer, value = build_optimizer(network, config.optim), build_loss(config)
    first, second = batches(2)
    train_step(network, value, first, optimizer, config.optim, runtime)  # makes what all later steps share
    with NeverWaiting():
        train_step(network, value, second, optimizer, config.optim, runtime)


@pytest.mark.parametrize("look", [Tensor.item, bool, lambda t: t[t > 0], lambda t: t.nonzero()])
def test_what_waits_is_noticed(look):
    with NeverWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        look(torch.ones(()) if look in (Tensor.item, bool) else torch.ones(3))


# -- work and memory --------------------------------------------------------------------------------------------------------


class Ledger(TorchDispatchMode):
    """Counts operations, and the bytes of the tensors that they make: all, the largest one's, and the most alive at a time."""

    def __init__(self):
        super().__init__()
        self.operations = self.bytes = self.largest = self.peak = self._alive = 0
        self._made: dict[int, weakref.ref] = {}

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        known = {t.untyped_storage().data_ptr() for t in tree_leaves((arguments, options)) if isinstance(t, Tensor)}
        made = operation(*arguments, **(options or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() not in known:
                self._enter(tensor.untyped_storage())
        self.operations += 1
        return made

    def _enter(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()

        def freed(_: weakref.ref) -> None:
            self._alive -= size
            del self._made[key]

        if key not in self._made:
            self._made[key] = weakref.ref(storage, freed)
            self._alive += size
            self.bytes += size
            self.largest, self.peak = max(self.largest, size), max(self.peak, self._alive)


def spent_in_second_step(config: RunConfig, runtime: LocalRuntime) -> Ledger:
    student, loss = build_network(config).train(), build_loss(config)
    optimizer, (first, second) = build_optimizer(student, config.optim), batches(2)
    train_step(student, loss, first, optimizer, config.optim, runtime)
    with Ledger() as spent:
        train_step(student, loss, second, optimizer, config.optim, runtime)
    return spent


def test_a_step_makes_no_map_over_all_bins_and_no_more_tensors_than_it_did(runtime):
    spent = spent_in_second_step(config_of("tie_kd", n_bins=257), runtime)
    one_map = 2 * 257 * SIZE[0] * SIZE[1] * 4
    assert spent.largest < one_map
    # 870 and 94 MB when this was written. Both are counted, not timed, and change only with the code or with PyTorch.
    assert spent.operations < 1100
    assert spent.bytes < 125e6


def test_a_step_keeps_no_more_maps_at_a_time_than_it_did(runtime):
    """With a decoder whose finest maps, 2.4 MB each, are nearly all there is."""
    config = override(config_of("tie_kd"), {"student.decoder_channels": [16, 16, 16, 96]})
    finest = 2 * 96 * SIZE[0] * SIZE[1] * 4
    # 4.9 when this was written: two convolutions' outputs, two slopes, and smaller ones. 6.1 if a convolution's resized input
    # were kept, 5.7 if the prediction lived on during the backward pass, 5.3 with nn.ReLU as the decoder's last layer.
    assert spent_in_second_step(config, runtime).peak < 5.1 * finest


def test_the_last_gradients_are_gone_when_a_step_begins(runtime):
    config = config_of("tie_kd")
    student, loss = build_network(config).train(), build_loss(config)
    optimizer, seen = build_optimizer(student, config.optim), []
    student.register_forward_pre_hook(lambda *_: seen.append([p.grad is None for p in student.parameters()]))
    for batch in batches(2):
        train_step(student, loss, batch, optimizer, config.optim, runtime)
    assert [all(gone) for gone in seen] == [True, True]

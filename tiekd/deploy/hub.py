"""Trained networks ready to predict, and as models of the Hugging Face hub.

A model folder holds model.safetensors (a weights file of this project, which every `tiekd` command reads), config.json (the
run's config) and README.md (the model card). It contains no pickle.
"""

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from torch import Tensor, nn

from tiekd.bins import DepthBins
from tiekd.config import RunConfig, build, override
from tiekd.config.changes import PREDICTION, check_changes
from tiekd.data.image_io import read_rgb
from tiekd.data.transforms import IMAGE_MEAN, IMAGE_STD
from tiekd.deploy.model_card import build_card
from tiekd.distill.runtime import choose_device
from tiekd.errors import UserError
from tiekd.inference.inputs import InputImage
from tiekd.inference.predict_images import ImagePrediction, predict_images
from tiekd.models.checkpoint import load_network, pack_network
from tiekd.models.dpm_head import DPMPrediction
from tiekd.models.prediction import Prediction
from tiekd.models.registry import build_network
from tiekd.store.files import check_output_folder, is_nonempty_folder, write_atomically
from tiekd.store.find_weights import HUB_WEIGHTS_FILE, find_weights

PAPER = "https://arxiv.org/abs/2402.14340"


class DepthModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="tiekd",
    pipeline_tag="depth-estimation",
    tags=["monocular-depth", "knowledge-distillation"],
    paper_url=PAPER,
):
    """A trained network, student or teacher, with its image normalization and depth range.

    `tiekd.load_student` loads one from a run, a weights file or a model folder; `DepthModel.from_pretrained` from a model
    folder or by its name on the Hugging Face hub. `config` is the run's config without paths of the machine that trained it.
    """

    def __init__(self, config: dict[str, Any]):
        """Build the network with fresh weights. config: the document of a `RunConfig`, as in config.json."""
        super().__init__()
        self.config = build(config, "config.json")
        self.network = build_network(override(self.config, {"student.pretrained": False}))
        self.card: str | None = None  # saved and pushed with the model; None: a card without results

    @classmethod
    def load(cls, weights: str | Path) -> Self:
        """Load a weights file, in evaluation mode. Raises UserError if it is not one."""
        network, config = load_network(weights)
        with torch.device("meta"):  # no memory for fresh weights, which are replaced at once
            model = cls(shareable(config).document())
        model.network = network
        return model.eval()

    def forward(self, image: Tensor) -> Prediction | DPMPrediction:
        """image [B, 3, H, W], RGB in 0..1. Returns depth in m, clamped to the depth range of the data."""
        mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        prediction = self.network((image * 255 - mean) / std)
        return prediction.clamp_depth(*self.config.data.depth_range)

    @property
    def bins(self) -> DepthBins | None:
        """The depth bins of the predicted distributions; None if the head has none."""
        return (
            DepthBins(self.config.bins.n_bins, *self.config.data.depth_range, self.config.bins.spacing)
            if self.config.student.head == "dpm"
            else None
        )

    def predict(self, image: np.ndarray | str | Path) -> ImagePrediction:
        """Predict one image of any size, as `tiekd predict` does. image: uint8 [H, W, 3] RGB, or an image file.

        Returns `depth` float32 [H, W] m, and with a DPM head `entropy` [H, W] and `distribution(x, y)`. Raises UserError for a
        file that cannot be read and for an image that the network cannot process, DivergedError for depth that is not finite.
        """
        if isinstance(image, str | Path):
            image = read_rgb(Path(image))

        def refuse(error: str) -> None:
            raise UserError(error)

        return next(self.predict_images([InputImage("image", image)], refuse))

    def predict_images(
        self, images: Iterable[InputImage], on_error: Callable[[str], None], batch_size: int = 1
    ) -> Iterator[ImagePrediction]:
        """Predict images of any size; see `tiekd.inference.predict_images`."""
        device = next(self.network.parameters()).device
        return predict_images(self.network, images, self.config, device, on_error, batch_size)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_atomically(Path(save_directory) / HUB_WEIGHTS_FILE, pack_network(self.network, self.config))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        return ModelCard(self.card or build_card(self.config, None))

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", config: dict | None = None, strict: bool = True, **download: Any
    ) -> Self:
        """The config is read from the weights file; pickles are never read, and no tensor may be missing."""
        folder = Path(model_id)
        if not folder.is_dir():
            return cls.load(hf_hub_download(model_id, HUB_WEIGHTS_FILE, **download)).to(map_location)
        model, card = cls.load(folder / HUB_WEIGHTS_FILE), folder / "README.md"
        model.card = card.read_text("utf-8") if card.is_file() else None
        return model.to(map_location)


def load_student(
    source: str | Path, *, store: str | None = None, device: str = "auto", overrides: Mapping[str, Any] | None = None
) -> DepthModel:
    """Load a trained network, ready to predict.

    source: a run's folder or URI, a weights file, a model folder, or with `store` a run id or a unique prefix of one. device:
    auto, cpu or cuda. overrides: changes of settings in `tiekd.config.changes.PREDICTION`, e.g. {"evaluation.flip_tta": False}.
    Raises UserError if there is no such network, and for other settings, which the weights were trained with.
    """
    changes = check_changes(overrides or {}, PREDICTION, "prediction")
    model = DepthModel.load(find_weights(str(source), store))
    model.config = override(model.config, {"execution.device": device, **changes})
    return model.to(choose_device(model.config.execution.device))


def shareable(config: RunConfig) -> RunConfig:
    """Remove the execution settings and the paths of the machine that trained the network."""
    document = config.document()
    del document["execution"]
    document["data"]["root"] = None
    document["student"]["pretrained"] = bool(document["student"]["pretrained"])  # not the path of a file
    if config.teacher:
        document["teacher"] = {"name": config.teacher.name, "maps": f"maps/{config.data.dataset}/{config.teacher.name}"}
    return build(document)


def check_model_folder(out: Path) -> None:
    """Raise UserError unless a model folder can be written at `out`."""
    check_output_folder(out, "--out")
    if is_nonempty_folder(out):
        raise UserError(f"--out {out}: is not empty; needed a new folder")


def write_model_folder(model: DepthModel, out: Path) -> None:
    """Write model.safetensors, config.json and README.md; the folder is complete or absent."""
    partial = out.absolute().with_name(f".{out.absolute().name}.{uuid.uuid4().hex}")
    try:
        model.save_pretrained(partial)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

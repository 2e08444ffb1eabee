"""A trained network as a model of the Hugging Face hub: `from_pretrained`, `save_pretrained`, `push_to_hub`.

A model's folder holds model.safetensors (our weights file, which every `tiekd` command reads as well), config.json (the run's
config) and README.md (its card). Nothing in it is a pickle.
"""

import shutil
import uuid
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from torch import Tensor, nn

from tiekd.bins import DepthBins
from tiekd.config import RunConfig, build, override
from tiekd.data.transforms import IMAGE_MEAN, IMAGE_STD
from tiekd.deploy.model_card import build_card
from tiekd.errors import UserError
from tiekd.inference.inputs import InputImage
from tiekd.inference.predict import predict_images
from tiekd.models.checkpoint import load_network, pack_network
from tiekd.models.registry import build_network
from tiekd.models.student import DPMPrediction, Prediction
from tiekd.store.files import check_output_folder, is_nonempty_folder, write_atomically
from tiekd.store.find_weights import HUB_WEIGHTS_FILE

PAPER = "https://arxiv.org/abs/2402.14340"


class DepthModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="tiekd",
    pipeline_tag="depth-estimation",
    tags=["monocular-depth", "knowledge-distillation"],
    paper_url=PAPER,
):
    """A network of ours, student or teacher, with its normalisation and its range of depth.

    `DepthModel.from_pretrained(FOLDER_OR_HUB_NAME)` loads one, in evaluation mode; a folder needs no connection.
    """

    def __init__(self, config: dict[str, Any]):
        """config: the document of a `RunConfig`, as config.json holds it; the weights are fresh."""
        super().__init__()
        self.config = build(config, "config.json")
        self.network = build_network(override(self.config, {"student.pretrained": False}))
        self.card: str | None = None  # what it is saved and pushed with; None: a card without numbers

    @classmethod
    def load(cls, weights: str | Path) -> Self:
        """The network of a weights file, in evaluation mode. Raises UserError for what is no such file."""
        network, config = load_network(weights)
        with torch.device("meta"):  # built without memory, since the network is there already
            model = cls(shareable(config).document())
        model.network = network
        return model.eval()

    def forward(self, image: Tensor) -> Prediction | DPMPrediction:
        """image [B, 3, H, W], RGB, 0 to 1; depth is m, within the range of the data."""
        mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        found = self.network((image * 255 - mean) / std)
        return found.clamp_depth(self.config.data.min_depth, self.config.data.max_depth)

    @property
    def bin_edges(self) -> list[float]:
        """[K + 1] m, of the bins of its distributions; empty for a head without."""
        return (
            DepthBins.from_config(self.config.data, self.config.bins).edges.tolist()
            if self.config.student.head == "dpm"
            else []
        )

    def depth(self, image: np.ndarray) -> np.ndarray:
        """Depth of an image of any size as `tiekd predict` tells it: uint8 [H, W, 3] RGB to float32 [H, W] m."""

        def refuse(line: str) -> None:
            raise UserError(line)

        device = next(self.network.parameters()).device
        return next(predict_images(self.network, [InputImage("image", image)], self.config, device, refuse)).depth

    def _save_pretrained(self, save_directory: Path) -> None:
        write_atomically(Path(save_directory) / HUB_WEIGHTS_FILE, pack_network(self.network, self.config))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        return ModelCard(self.card or build_card(self.config, None))

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, map_location: str = "cpu", config: dict | None = None, strict: bool = True, **download: Any
    ) -> Self:
        """The settings come from the weights' own header; a pickle is never looked for, and no tensor may be missing."""
        folder = Path(model_id)
        if folder.is_dir():
            student = cls.load(folder / HUB_WEIGHTS_FILE)
            student.card = (folder / "README.md").read_text("utf-8") if (folder / "README.md").is_file() else None
            return student.to(map_location)
        return cls.load(hf_hub_download(model_id, HUB_WEIGHTS_FILE, **download)).to(map_location)


def shareable(config: RunConfig) -> RunConfig:
    """The config without what tells of the machine it ran on: its paths, its store, its devices."""
    document = config.document()
    del document["execution"]
    document["data"]["root"] = None
    if document["teacher"]:
        document["teacher"]["maps"] = f"maps/{config.data.dataset}/{config.teacher.name}"
    return build(document)


def check_model_folder(out: Path) -> None:
    """Raise a `UserError` unless a model folder can be written there."""
    check_output_folder(out, "--out")
    if is_nonempty_folder(out):
        raise UserError(f"--out {out}: is not empty; needed a new folder")


def write_model_folder(student: DepthModel, out: Path) -> None:
    """Write model.safetensors, config.json and README.md; the folder is whole or absent."""
    partial = out.absolute().with_name(f".{out.absolute().name}.{uuid.uuid4().hex}")
    try:
        student.save_pretrained(partial)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)

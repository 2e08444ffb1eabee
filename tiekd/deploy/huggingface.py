"""Metric depth models of the transformers library as teachers, by their name on the Hugging Face hub or as a folder.

The library is optional (`pip install 'tiekd[hf]'`) and imported when a model is loaded.
"""

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F

from tiekd.data.depth_range import check_reach
from tiekd.distill.runtime import choose_device
from tiekd.errors import UserError
from tiekd.models.encoder import HUB_TIMEOUT_S

EXAMPLES = "depth-anything/Depth-Anything-V2-Metric-Outdoor-Large-hf, Intel/zoedepth-nyu-kitti, apple/DepthPro-hf"
# Families whose output is in m by construction. For other models the config must say so with Depth Anything's setting, or else
# the user.
METRIC_FAMILIES = ("depth_pro", "glpn", "tipsv2_dpt", "zoedepth")

SETTINGS, WEIGHTS = "*.json", "model*.safetensors"  # the only files that are downloaded and read


@dataclass(frozen=True)
class HuggingFaceTeacher:
    """A `TeacherModel` with the model's own image processor: normalization, size, padding, and resizing to the frame."""

    model: nn.Module
    processor: Any
    max_depth: float  # m
    device_setting: str  # of `execution.device`
    made_by: dict[str, Any]  # identifies the model in the manifest of its maps

    @classmethod
    def load(cls, model: str, max_depth: float, device: str = "auto", metric: bool = False, relative: bool = False) -> Self:
        """Load the model of a folder, or of a hub name with or without @REVISION, for data up to `max_depth` m.

        metric: its output is in m, although neither its config nor its family says so. relative: its output is taken as it
        is, whatever its unit and range; `max_depth` is infinite then. Raises UserError for an unknown model and, unless
        `relative`, for one of relative depth or a smaller range, before its weights are downloaded.
        """
        version = _library_version()
        folder = _folder(model, [SETTINGS])
        config = _read_config(model, folder)
        _check_usable(model, config)
        if not relative:
            _check_metric(model, config, max_depth, metric)
        processor = _read_processor(model, folder)
        folder = _folder(model, [SETTINGS, WEIGHTS])
        network = _read_network(model, folder, config)
        of_hub = not Path(model).is_dir()
        made_by = {
            "model": model.partition("@")[0] if of_hub else folder.resolve().name,
            "revision": folder.name if of_hub else None,
            "weights": {file.name: _digest(file) for file in sorted(folder.glob(WEIGHTS))},
            "architecture": type(network).__name__,
            "max_depth": _largest_depth(config),
            "processor": {"class": type(processor).__name__, **json.loads(processor.to_json_string())},
            "transformers": version,
        }
        return cls(network.float().eval(), processor, math.inf if relative else max_depth, device, made_by)

    @cached_property
    def device(self) -> torch.device:
        return choose_device(self.device_setting)

    @torch.inference_mode()
    def depth(self, images: np.ndarray, precision: str = "fp32") -> np.ndarray:
        """images uint8 [B, H, W, 3] RGB. Returns float32 [B, H, W] m in 0 .. max_depth; as predicted if that is infinite."""
        divisor = _padding_multiple(self.processor)
        unpadded = {"do_pad": False} if divisor else {}
        inputs = self.processor(images=list(images), input_data_format="channels_last", return_tensors="pt", **unpadded)
        pixel_values, model = inputs["pixel_values"].to(self.device), self.model.to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = _run_padded(model, pixel_values, divisor) if divisor else model(pixel_values=pixel_values)
        outputs.predicted_depth = outputs.predicted_depth.float()
        # By position: ZoeDepth's processor names the argument source_sizes, the others target_sizes.
        found = self.processor.post_process_depth_estimation(outputs, [images.shape[1:3]] * len(images))
        depth = torch.stack([each["predicted_depth"] for each in found])
        in_range = depth if math.isinf(self.max_depth) else depth.clamp(0, self.max_depth)
        return in_range.where(depth.isfinite(), torch.nan).cpu().numpy()


def _padding_multiple(processor: Any) -> int | None:
    """The multiple in px to which a processor like DPT's pads, or None.

    Such a processor does not remove the padding from the prediction. ZoeDepth's, which has no multiple, does.
    """
    return getattr(processor, "size_divisor", None) if getattr(processor, "do_pad", False) else None


def _run_padded(model: nn.Module, pixel_values: Tensor, divisor: int) -> Any:
    """Run a model on images [B, 3, H, W], zero-padded to multiples of `divisor` px; crops predicted_depth to [B, H, W]."""
    height, width = pixel_values.shape[-2:]
    more_rows, more_columns = -height % divisor, -width % divisor
    top, left = more_rows // 2, more_columns // 2
    padded = F.pad(pixel_values, (left, more_columns - left, top, more_rows - top))
    outputs = model(pixel_values=padded)
    depth = F.interpolate(outputs.predicted_depth[:, None], padded.shape[-2:], mode="bilinear")[:, 0]
    outputs.predicted_depth = depth[:, top : top + height, left : left + width]
    return outputs


# -- which models are usable -------------------------------------------------------------------------------------------------


def _check_usable(model: str, config: Any) -> None:
    from transformers import MODEL_FOR_DEPTH_ESTIMATION_MAPPING

    if type(config) not in MODEL_FOR_DEPTH_ESTIMATION_MAPPING:
        raise UserError(f"model {model}: {config.model_type} is no depth model of the transformers library; valid: {EXAMPLES}")


def _check_metric(model: str, config: Any, max_depth: float, metric: bool) -> None:
    stated = _is_metric(config)
    if stated is False or not (stated or metric):
        alternative = "" if stated is False else ", or --metric for one that was trained on metres"
        raise UserError(
            f"model {model}: {config.model_type} gives relative depth, a teacher's is in metres; valid: {EXAMPLES}{alternative}"
            "; or set teacher.align in the student's config"
        )
    largest = _largest_depth(config)
    if largest is not None:
        check_reach(f"model {model}", largest, max_depth)


def _is_metric(config: Any) -> bool | None:
    """Whether a model's output is in m; None if neither its config nor its family says."""
    stated = getattr(config, "depth_estimation_type", None)
    if stated is not None:
        return stated == "metric"
    if config.model_type in METRIC_FAMILIES:
        return getattr(config, "use_fov_model", True)  # Depth Pro computes the scale from the field of view
    return None


def _largest_depth(config: Any) -> float | None:
    """The maximum of a model's range in m, over its heads; None if its config does not state it."""
    heads = getattr(config, "bin_configurations", None) or []
    return max((float(head["max_depth"]) for head in heads), default=getattr(config, "max_depth", None))


# -- reading -------------------------------------------------------------------------------------------------------------------


def _library_version() -> str:
    """Version of the transformers library. Raises UserError if it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError("models of the Hugging Face hub need the transformers library: pip install 'tiekd[hf]'") from None
    return transformers.__version__


def _read_config(model: str, folder: Path) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise UserError(f"model {model}: no config of a model of the transformers library: {_first_line(error)}") from None


def _read_processor(model: str, folder: Path) -> Any:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"model {model}: its image processor cannot be read: {_first_line(error)}") from None
    if not hasattr(processor, "post_process_depth_estimation"):
        raise UserError(f"model {model}: its image processor {type(processor).__name__} is not one of a depth model")
    if getattr(processor, "do_center_crop", False):
        raise UserError(f"model {model}: its image processor cuts the frame; set do_center_crop: false in a copy of the folder")
    return processor


def _read_network(model: str, folder: Path, config: Any) -> nn.Module:
    from transformers import AutoModelForDepthEstimation

    if not any(folder.glob(WEIGHTS)):
        raise UserError(f"model {model}: no {WEIGHTS} in it; other formats are pickles, which are not read")
    try:
        network, found = AutoModelForDepthEstimation.from_pretrained(
            folder, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise UserError(f"model {model}: its network cannot be read: {_first_line(error)}") from None
    # The library initializes missing tensors randomly and only warns.
    missing = sorted(found["missing_keys"])
    if missing:
        raise UserError(f"model {model}: its weights lack {len(missing)} tensors, first {', '.join(missing[:3])}")
    return network


def _folder(model: str, patterns: list[str]) -> Path:
    """The folder of that name, or the hub's snapshot (named after its revision), from the cache if the hub does not respond."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    if Path(model).is_dir():
        return Path(model)
    name, _, revision = model.partition("@")
    try:
        offline = not _hub_responds(name, revision or None)
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns, local_files_only=offline))
    except HFValidationError:
        raise UserError(f"model {model}: no such folder, and no name of the Hugging Face hub; valid: {EXAMPLES}") from None
    except LocalEntryNotFoundError:
        raise UserError(
            f"model {model}: no such folder, and not in the cache of the Hugging Face hub, which is out of reach; "
            f"`hf download {name}{f' --revision {revision}' if revision else ''}` where it is not, or give a folder"
        ) from None


def _hub_responds(model: str, revision: str | None) -> bool:
    """Whether the hub responds to a query about a model. Raises UserError if it does not have the model or restricts it."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        HfApi().model_info(model, revision=revision, timeout=HUB_TIMEOUT_S)
    except HFValidationError:
        raise
    except GatedRepoError:
        raise UserError(f"model {model}: accept its terms at huggingface.co/{model}, then `hf auth login`") from None
    except RevisionNotFoundError:
        raise UserError(f"model {model}: the Hugging Face hub has no revision {revision!r} of it") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"model {model}: no such folder, and the Hugging Face hub knows no such model (a private one: `hf auth login`)"
        ) from None
    except Exception:  # no connection; its type depends on the HTTP client of this version of huggingface_hub
        return False
    return True


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

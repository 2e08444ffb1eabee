"""AdaBins (Bhat et al. 2021, https://arxiv.org/abs/2011.14141) as in the released code: depth bins adapted to each image.

B: batch; C: width of the decoder's output; K: bins; P: patches; h, w: half the image's size.
"""

import torch
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from tiekd.config import RunConfig
from tiekd.data.image_io import Size, format_size
from tiekd.errors import UserError
from tiekd.models.decoder import DenseDepthDecoder, resize
from tiekd.models.encoder import create_encoder
from tiekd.models.prediction import Prediction
from tiekd.models.released_keys import ReleasedKeys

_LEVELS = (0, 1, 2, 3, 4)
PATCH = 16  # px of the half-size map
POSITIONS = 500  # maximum number of patches of an image
HEADS = 4


def build_adabins(config: RunConfig) -> "AdaBins":
    """Build AdaBins. Raises UserError for unsupported encoders, levels, widths and image sizes."""
    student, data, width = config.student, config.data, config.student.decoder_channels[-1]
    if student.levels != _LEVELS:
        raise UserError(f"student.levels: adabins decodes the levels {list(_LEVELS)}, got {list(student.levels)}")
    if width % HEADS:
        raise UserError(f"student.decoder_channels: adabins needs a multiple of {HEADS} as its last width, got {width}")
    for size in filter(None, (data.train_crop, data.frame_size)):
        check_size(size, width)
    encoder = create_encoder(student, num_classes=0)
    if not (isinstance(encoder, EfficientNet) and isinstance(encoder.conv_head, nn.Conv2d)):
        raise UserError(
            f"student.encoder: adabins reads the convolution that follows the last level, which {student.encoder!r} lacks; "
            "valid: the EfficientNets and MobileNetV2s of timm"
        )
    encoder.bn2 = nn.Identity()  # the released code uses that convolution's output without norm and activation
    channels = [*(level["num_chs"] for level in encoder.feature_info[:-1]), encoder.num_features]
    # The decoder's output has the size of the finest level. The paper's own code has LeakyReLU, the released code ReLU.
    decoder = DenseDepthDecoder(channels, [1, 2, 4, 8, 16], student.decoder_channels, normed=True)
    return AdaBins(encoder, decoder, AdaptiveBinsHead(width, config.bins.n_bins, *data.depth_range))


def check_size(size: Size, width: int) -> None:
    """Raise UserError unless an image of `size` has enough patches for a head of `width` channels, and at most POSITIONS."""
    rows, columns = (-(-length // 2) // PATCH for length in size)
    if not width < rows * columns <= POSITIONS:
        raise UserError(
            f"adabins divides an image of {format_size(size)} into {rows} x {columns} patches of {2 * PATCH} x {2 * PATCH} px; "
            f"valid: {width + 1} (one more than the last of student.decoder_channels) to {POSITIONS} patches"
        )


class AdaptiveBinsHead(nn.Module):
    """Features to depth over bins that a small transformer (the paper's mini-ViT) chooses for each image.

    The transformer's output for the first patch gives the widths of the bins. Its outputs for the next C patches are kernels of
    1x1 convolutions, from whose maps the bins are scored at each pixel.
    """

    def __init__(self, channels: int, n_bins: int, min_depth: float, max_depth: float):
        super().__init__()
        self.min_depth, self.max_depth = min_depth, max_depth
        self.entry = nn.Conv2d(channels, channels, 3, padding=1)
        self.patches = nn.Conv2d(channels, channels, PATCH, stride=PATCH)
        self.positions = nn.Parameter(torch.rand(POSITIONS, channels))
        layer = nn.TransformerEncoderLayer(channels, HEADS, dim_feedforward=1024, batch_first=True)
        self.transformer = nn.TransformerEncoder(layer, num_layers=4, enable_nested_tensor=False)
        self.pixels = nn.Conv2d(channels, channels, 3, padding=1)
        self.widths = nn.Sequential(
            nn.Linear(channels, 256), nn.LeakyReLU(), nn.Linear(256, 256), nn.LeakyReLU(), nn.Linear(256, n_bins)
        )
        self.logits = nn.Conv2d(channels, n_bins, 1)

    def forward(self, features: Tensor) -> Prediction:
        """features [B, C, h, w] to depth [B, 1, h, w] m and bin centers [B, K] m."""
        features = self.entry(features)
        patches = self.patches(features).flatten(2).transpose(1, 2)  # [B, P, C]
        tokens = self.transformer(patches + self.positions[: patches.shape[1]])
        kernels = tokens[:, 1 : 1 + features.shape[1]]
        attention = torch.einsum("bqc,bchw->bqhw", kernels, self.pixels(features))
        probability = torch.softmax(self.logits(attention).float(), dim=1)
        centers = self.centers(tokens[:, 0])
        # Not an einsum, which autocast would compute in bfloat16.
        depth = (probability * centers[:, :, None, None]).sum(dim=1, keepdim=True)
        return Prediction(depth, bin_centers=centers)

    def centers(self, token: Tensor) -> Tensor:
        """[B, C] to the midpoints [B, K] m of bins of positive width that partition [min_depth, max_depth]."""
        widths = torch.relu(self.widths(token).float()) + 0.1
        widths = (self.max_depth - self.min_depth) * widths / widths.sum(dim=1, keepdim=True)
        return self.min_depth + widths.cumsum(dim=1) - widths / 2


class AdaBins(nn.Module):
    """Encoder, decoder, head. The decoder's output and the head are at half the image's size."""

    def __init__(self, encoder: EfficientNet, decoder: DenseDepthDecoder, head: AdaptiveBinsHead):
        super().__init__()
        self.encoder, self.decoder, self.head = encoder, decoder, head

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's levels, finest first; the last is replaced by the convolution that follows it."""
        deepest, levels = self.encoder.forward_intermediates(image, indices=list(_LEVELS[:-1]))
        return [*levels, deepest]

    def forward(self, image: Tensor) -> Prediction:
        """image [B, 3, H, W], normalized. Raises UserError for an unsupported size."""
        height, width = image.shape[-2:]
        check_size((height, width), self.decoder.channels_out)
        features = self.features(image)
        prediction = self.head(self.decoder(features, features[0].shape[-2:]))
        depth = prediction.depth
        if not self.training:  # only rounding exceeds the range; in training, a clamp would remove the gradient there
            depth = depth.clamp(self.head.min_depth, self.head.max_depth)
        return prediction._replace(depth=resize(depth, (height, width)))


_VIT = "decode_head.adaptive_bins_layer."
_BLOCK = {0: "convA.conv.", 1: "convA.bn.", 3: "convB.conv.", 4: "convB.bn."}
_RELEASED = {  # prefixes of names: ours, theirs
    "encoder.": "backbone.original_model.",
    "decoder.bottleneck.": "decode_head.conv_list.0.conv.",
    **{f"decoder.merges.{i}.{j}.": f"decode_head.conv_list.{i + 1}.{layer}" for i in range(4) for j, layer in _BLOCK.items()},
    "head.entry.": "decode_head.decode_final_conv.",
    "head.patches.": f"{_VIT}patch_transformer.embedding_convPxP.",
    "head.positions": f"{_VIT}patch_transformer.positional_encodings",
    "head.transformer.": f"{_VIT}patch_transformer.transformer_encoder.",
    "head.pixels.": f"{_VIT}conv3x3.",
    "head.widths.": f"{_VIT}regressor.",
    "head.logits.": "decode_head.conv_out.0.",
}
_UNUSED_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def adabins_released_keys(network: AdaBins) -> ReleasedKeys:
    """The released keys. Unused are a regression head, and the batch norm that `build_adabins` removes."""
    names = {
        key: theirs + key.removeprefix(ours)
        for key in network.state_dict()
        for ours, theirs in _RELEASED.items()
        if key.startswith(ours)
    }
    unused = {f"decode_head.conv_depth.{tensor}" for tensor in ("weight", "bias")}
    return ReleasedKeys(names, frozenset(unused | {f"backbone.original_model.bn2.{tensor}" for tensor in _UNUSED_NORM}))

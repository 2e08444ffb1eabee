import copy
import itertools

import pytest
import torch
from torch import nn

from tiekd.models.decoder import DenseDepthDecoder, FastDepthDecoder, resize


@pytest.mark.parametrize(("reductions", "upsamples"), [([2, 4, 8], 1), ([4, 8, 16], 2), ([1, 2, 4], 0)])
def test_the_finest_feature_is_doubled_up_to_the_image(reductions, upsamples):
    decoder = DenseDepthDecoder([8, 16, 24], reductions, (32, 20, 12))
    assert len(decoder.upsamples) == upsamples
    features = [torch.randn(1, width, 64 // r, 96 // r) for width, r in zip((8, 16, 24), reductions, strict=True)]
    assert decoder(features, (64, 96)).shape == (1, decoder.channels_out, 64, 96)


def test_every_feature_counts():
    decoder = DenseDepthDecoder([8, 16, 24], [4, 8, 16], (32, 20, 12))
    features = [torch.randn(1, w, 64 // r, 96 // r, requires_grad=True) for w, r in ((8, 4), (16, 8), (24, 16))]
    decoder(features, (64, 96)).sum().backward()
    assert all(feature.grad.any() for feature in features)


def test_resizing_keeps_the_corners():
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    large = resize(maps, (7, 9))
    assert large.shape == (1, 1, 7, 9)
    torch.testing.assert_close(large[0, 0, ::6, ::8], maps[0, 0, ::2, ::3])
    assert resize(maps, (3, 4)) is maps


def plain(decoder: DenseDepthDecoder, features: list[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
    """The decoder written down, with nothing made again; its last activation is an ordinary one."""
    *skips, deepest = features
    x = decoder.bottleneck(deepest)
    for merge, skip in zip(decoder.merges, reversed(skips), strict=True):
        x = nn.Sequential(*merge)(torch.cat([resize(x, skip.shape[-2:]), skip], dim=1))
    for upsample in decoder.upsamples:
        x = nn.Sequential(*upsample)(resize(x, (2 * x.shape[-2], 2 * x.shape[-1])))
    return resize(x, size)


@pytest.mark.parametrize("reductions", [[2, 4, 8], [1, 2, 4]], ids=["ending in an upsampling", "ending in a merge"])
@pytest.mark.parametrize(("activation", "normed"), [(nn.ReLU, False), (nn.ReLU, True), (nn.LeakyReLU, False)])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
def test_output_gradients_and_statistics_are_to_the_bit_those_of_the_decoder_written_down(
    activation, normed, reductions, precision
):
    torch.manual_seed(0)
    lean = DenseDepthDecoder([8, 16, 24], reductions, (32, 20, 12), activation, normed)
    usual = copy.deepcopy(lean)
    (*usual.merges, *usual.upsamples)[-1][-1] = activation(inplace=True)
    found = []
    for decoder, forward in ((lean, lean), (usual, lambda *given: plain(usual, *given))):
        torch.manual_seed(1)
        features = [
            torch.randn(2, w, 32 // r, 48 // r, requires_grad=True) for w, r in zip((8, 16, 24), reductions, strict=True)
        ]
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            out = forward(features, (32, 48))
        out.square().sum().backward()
        tensors = {name: p.grad for name, p in decoder.named_parameters()} | dict(decoder.named_buffers())
        found.append(tensors | {"out": out.detach()} | {f"feature {i}": f.grad for i, f in enumerate(features)})
    assert found[0]["out"].dtype == precision
    assert found[0]["out"].any()
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert not normed or lean.merges[0][1].num_batches_tracked == 1


def test_a_decoder_of_one_level_at_full_size_is_its_bottleneck():
    decoder = DenseDepthDecoder([8], [1], (12,))
    assert decoder([torch.randn(1, 8, 16, 24)], (16, 24)).shape == (1, 12, 16, 24)


def test_fastdepth_adds_nearest_upsampled_features_to_the_skips():
    """Against the decoder written down."""
    torch.manual_seed(0)
    decoder = FastDepthDecoder([8, 16, 24], (16, 12, 6)).eval()
    assert [type(skip) for skip in decoder.skips] == [nn.Identity, nn.Conv2d]  # a skip of the level's width is added as it is
    fine, middle, deep = (torch.randn(1, w, 32 // r, 48 // r) for w, r in ((8, 2), (16, 4), (24, 8)))
    with torch.no_grad():
        x = decoder.levels[0](deep).repeat_interleave(2, 2).repeat_interleave(2, 3) + middle
        x = decoder.levels[1](x).repeat_interleave(2, 2).repeat_interleave(2, 3) + decoder.skips[1](fine)
        x = decoder.levels[2](x).repeat_interleave(2, 2).repeat_interleave(2, 3)
        torch.testing.assert_close(decoder([fine, middle, deep], (32, 48)), x, rtol=0, atol=0)
    assert x.shape == (1, decoder.channels_out, 32, 48)


def test_fastdepth_has_the_parameters_of_the_paper():
    """Depthwise 5x5 and 1x1 convolutions of 1024 to 512, 256, 128, 64 and 32 channels, with two batch norms each."""
    widths = (1024, 512, 256, 128, 64, 32)
    decoder = FastDepthDecoder([64, 128, 256, 512, 1024], widths[1:])
    expected = sum(25 * a + a * b + 2 * (a + b) for a, b in itertools.pairwise(widths))
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected

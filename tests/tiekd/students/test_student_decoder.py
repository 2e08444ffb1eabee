import pytest
import torch

from tiekd.students.decoder import DenseDepthDecoder, resize


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

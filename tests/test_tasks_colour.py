"""Lab, its bins, and the tasks that predict colours."""

import numpy as np
import pytest
import torch

from selfsup.data.image import Arrays
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.nn.image.lab import AbBins, ab_bins, coloured, from_lab, from_light, luminance, to_lab, to_light
from selfsup.spec import ImageSpec
from selfsup.tasks.image.colorization import Colorization
from selfsup.tasks.image.split_brain import SplitBrain

SPEC = ImageSpec.of(16, 3)
MEAN, STD = (torch.tensor(values).view(-1, 1, 1) for values in (SPEC.mean, SPEC.std))


def encoder(name: str = "convnet", spec: ImageSpec = SPEC):
    torch.manual_seed(0)
    return build_encoder(name, spec)


def normalised(*colours: tuple[float, float, float], size: int = 16) -> torch.Tensor:
    return (torch.tensor(colours).view(-1, 3, 1, 1).expand(-1, -1, size, size) - MEAN) / STD


def colourful(count: int = 8) -> torch.Tensor:
    """Images whose hue follows their brightness."""
    generator = torch.Generator().manual_seed(0)
    rgb = torch.rand(count, 3, 4, 4, generator=generator).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return (rgb - MEAN) / STD


def test_lab_of_known_colours() -> None:
    x = normalised((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0), (0.5, 0.5, 0.5))
    lab = to_lab(to_light(x, SPEC))[:, :, 0, 0]
    expected = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]]
    torch.testing.assert_close(lab, torch.tensor([*expected, [100, 0, 0], [0, 0, 0], [53.39, 0, 0]]), atol=0.02, rtol=0)


def test_lab_is_exact_where_products_are_computed_in_16_bits() -> None:
    light = to_light(colourful(), SPEC)
    with torch.autocast("cpu", torch.bfloat16):
        lab = to_lab(light)
        torch.testing.assert_close(from_lab(lab), light, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(lab, to_lab(light))


def test_lab_and_back_and_grey_of_the_same_lightness() -> None:
    x = colourful()
    light = to_light(x, SPEC)
    torch.testing.assert_close(from_light(from_lab(to_lab(light)), SPEC), x, atol=1e-4, rtol=1e-4)
    grey = from_light(luminance(light), SPEC)
    torch.testing.assert_close(to_lab(to_light(grey, SPEC))[:, 0], to_lab(light)[:, 0], atol=0.01, rtol=1e-3)
    assert coloured(to_lab(to_light(grey, SPEC))[:, 1:]).sum() == 0


def test_bins_are_the_261_points_to_which_a_colour_is_nearest() -> None:
    bins = ab_bins()
    assert bins.shape == (261, 2)
    assert (bins % 10 == 0).all()
    ab = to_lab(torch.rand(4000, 3, 1, 1, generator=torch.Generator().manual_seed(0)).pow(2))[:, 1:, 0, 0]
    assert torch.cdist(ab, bins).amin(1).max() <= 50**0.5 + 1e-3, "no colour is outside of its bin's square"


def test_soft_labels_from_the_table_are_those_of_the_ten_nearest_bins() -> None:
    bins = AbBins()
    ab = torch.randint(-30, 30, (2, 2, 3, 3), generator=torch.Generator().manual_seed(0)).float() * 2
    logits = torch.randn(2, 261, 3, 3, generator=torch.Generator().manual_seed(1))
    squared = torch.cdist(ab.permute(0, 2, 3, 1).reshape(-1, 2), bins.centres).square()
    nearest = squared.topk(10, largest=False)
    target = torch.zeros_like(squared).scatter(1, nearest.indices, torch.exp(-nearest.values / 50))
    target = target / target.sum(1, keepdim=True)
    expected = -(target * logits.permute(0, 2, 3, 1).reshape(-1, 261).log_softmax(1)).sum(1).view(2, 3, 3)
    torch.testing.assert_close(bins(logits, bins.places(ab)), expected, atol=1e-4, rtol=1e-4)


def test_annealed_mean_lies_between_mode_and_mean() -> None:
    bins = AbBins()
    logits = torch.full((1, 261, 1, 1), -30.0)
    logits[0, :2] = torch.tensor([1.0, 0.0]).view(2, 1, 1)
    mode, other = bins.centres[0], bins.centres[1]
    share = torch.sigmoid(torch.tensor(1 / 0.38))
    torch.testing.assert_close(
        bins.annealed_mean(logits)[0, :, 0, 0], share * mode + (1 - share) * other, atol=1e-2, rtol=0
    )


def test_rare_colours_weigh_more_and_the_mean_weight_is_one() -> None:
    reds, blues = np.full((15, 16, 16, 3), (200, 40, 40)), np.full((1, 16, 16, 3), (40, 40, 200))
    greys = np.full((8, 16, 16, 3), 120)
    task = Colorization(encoder())
    task.samples(Arrays(np.concatenate([reds, blues, greys]).astype(np.uint8)))
    x = normalised((200 / 255, 40 / 255, 40 / 255), (40 / 255, 40 / 255, 200 / 255))
    place = task.bins.places(to_lab(to_light(x, SPEC))[:, 1:, :1, :1])
    red, blue = task.weight[task.bins.near[:, 0]][place].flatten().tolist()
    assert blue > 3 * red
    p = 15 / 16 * task.bins.frequencies(place[:1]) + 1 / 16 * task.bins.frequencies(place[1:])
    assert (p * task.weight).sum().item() == pytest.approx(1, abs=1e-4)


def test_grey_images_are_left_out_and_counted() -> None:
    task = Colorization(encoder()).eval()
    x = colourful(4)
    mixed = torch.cat([x, normalised((0.3, 0.3, 0.3), (0.8, 0.8, 0.8))])
    loss = task.loss({"x": mixed})
    torch.testing.assert_close(loss.value, task.loss({"x": x}).value)
    assert loss.metrics["grey"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("kind", [Colorization, SplitBrain])
def test_images_without_colour_are_one_clear_line(kind) -> None:
    with pytest.raises(UserError, match="3 channels"):
        kind(encoder(spec=ImageSpec.of(16, 1)))
    with pytest.raises(UserError, match="grey"):
        kind(encoder()).samples(Arrays(np.full((4, 16, 16, 3), 100, np.uint8)))


@pytest.mark.parametrize("kind", [Colorization, SplitBrain])
def test_constant_and_grey_batches_have_a_finite_loss_and_gradient(kind) -> None:
    for x in (normalised((0.2, 0.7, 0.1), (0.0, 0.0, 0.0)), normalised((1.0, 1.0, 1.0), (0.0, 0.0, 0.0))):
        task = kind(encoder())
        loss = task.loss({"x": x})
        loss.value.backward()
        assert all(value.isfinite() for value in (loss.value, *loss.metrics.values()))
        assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


def test_the_encoder_of_colorization_sees_lightness_alone() -> None:
    task, seen = Colorization(encoder()).eval(), []
    task.encoder.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    task.loss({"x": colourful()})
    rgb = seen[0] * STD + MEAN
    torch.testing.assert_close(rgb[:, 0], rgb[:, 1])
    torch.testing.assert_close(rgb[:, 0], rgb[:, 2])


@pytest.mark.parametrize("name", ["convnet", "vit-mini"])
def test_what_colorization_keeps_does_not_depend_on_colours(name: str) -> None:
    kept = Colorization(encoder(name)).eval().representation()
    x = colourful(2)
    lab = to_lab(to_light(x, SPEC))
    grey, darker = (from_light(from_lab(lab * torch.tensor(s).view(3, 1, 1)), SPEC) for s in ((1.0, 0, 0), (0.5, 0, 0)))
    assert kept(x).shape == (2, kept.dim)
    torch.testing.assert_close(kept(x), kept(grey), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(kept.maps(x), kept.maps(grey), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(kept(x), kept(darker), atol=1e-2)


@pytest.mark.parametrize("name", ["convnet", "resnet18"])
def test_the_halves_of_split_brain_share_nothing(name: str) -> None:
    task = SplitBrain(encoder(name)).eval()
    x = colourful(2).requires_grad_()
    lab = to_lab(to_light(x, SPEC))
    other = torch.cat([lab[:, :1], lab[:, 1:] * 0.5], 1)
    kept = task.representation()
    first, second = (kept(from_light(from_lab(values), SPEC)).chunk(2, 1) for values in (lab, other))
    torch.testing.assert_close(first[0], second[0], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(first[1], second[1], atol=1e-3, rtol=1e-3)
    assert kept.dim == sum(half.shape[1] for half in first)


def test_encoders_that_cannot_be_cut_are_one_clear_line() -> None:
    with pytest.raises(UserError, match="halves"):
        SplitBrain(encoder("vit-mini"))


@pytest.mark.parametrize("kind", [Colorization, SplitBrain])
def test_shapes_can_be_had_without_weights(kind) -> None:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in kind(encoder()).state_dict().items()}
    assert shapes == {key: value.shape for key, value in kind(encoder()).state_dict().items()}


def test_colorization_takes_transformers() -> None:
    assert Colorization(encoder("vit-mini")).predict(colourful(2)).shape == (2, 261, 4, 4)

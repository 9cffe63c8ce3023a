"""What the generative tasks promise beyond the contract of every task."""

import pytest
import torch

from selfsup.data import ImageSpec
from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.nn import noise
from selfsup.nn.detached import detached
from selfsup.tasks.image.denoising import Denoising
from selfsup.tasks.image.vae import VAE

SPEC = ImageSpec.of(16, 3)


def encoder():
    torch.manual_seed(0)
    return build_encoder("convnet", SPEC)


def batch(count: int = 6, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, 16, 16, generator=generator)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (SPEC.mean, SPEC.std))
    return {"x": (x - mean) / std, "noise": torch.randint(2**62, (count,), generator=generator)}


def pixels(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (SPEC.mean, SPEC.std))
    return x * std + mean


def test_detached_passes_gradients_to_the_input_alone() -> None:
    layer, x = torch.nn.Linear(3, 2), torch.randn(4, 3, requires_grad=True)
    detached(layer, x).sum().backward()
    assert layer.weight.grad is None
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(4, 3))


def test_masking_blackens_the_share_of_pixels_that_was_asked_for() -> None:
    data = batch(40)
    corrupted, _ = Denoising(encoder(), amount=0.4).corrupt(data)
    changed = (corrupted != data["x"]).any(1)
    assert changed.float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert pixels(corrupted).permute(0, 2, 3, 1)[changed].abs().max() < 1e-5
    assert len({row.sum().item() for row in changed}) > 1, "each picture has its own pixels"


def test_salt_and_pepper_is_black_or_white_by_a_fair_coin() -> None:
    data = batch(40)
    corrupted, _ = Denoising(encoder(), corruption="salt_pepper").corrupt(data)
    changed = pixels(corrupted).permute(0, 2, 3, 1)[(corrupted != data["x"]).any(1)]
    assert changed.round().unique(dim=0).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert changed.mean().item() == pytest.approx(0.5, abs=0.05)


def test_gaussian_noise_has_its_deviation_and_mixed_draws_every_kind() -> None:
    data = batch(40)
    corrupted, _ = Denoising(encoder(), corruption="gaussian", sigma=0.3).corrupt(data)
    assert (corrupted - data["x"]).std().item() == pytest.approx(0.3, rel=0.05)
    assert set(Denoising(encoder(), corruption="mixed").corrupt(data)[1].tolist()) == {0, 1, 2}


def test_the_loss_of_the_vae_is_its_formula_with_the_reconstruction_summed() -> None:
    task, data = VAE(encoder(), latent=5, beta=3.0).eval(), batch()
    mean, log_variance = task.posterior(data["x"])
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    z = mean + q.scale * noise.normal(data["noise"], 5)
    p = torch.distributions.Normal(task.decoder(z), 1.0)
    constant = 0.5 * torch.log(torch.tensor(2 * torch.pi)) * data["x"][0].numel()
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    expected = (-p.log_prob(data["x"]).sum((1, 2, 3)) - constant + 3 * kl).mean()
    torch.testing.assert_close(task.loss(data).value, expected)


def test_the_representation_of_the_vae_is_the_mean() -> None:
    task, data = VAE(encoder(), latent=5).eval(), batch()
    kept = task.representation()
    assert kept.dim == 5
    torch.testing.assert_close(kept(data["x"]), task.posterior(data["x"])[0])


@pytest.mark.parametrize("kind", [Denoising, VAE])
def test_constant_pictures_have_a_finite_loss_and_gradient(kind) -> None:
    task, data = kind(encoder()), batch()
    loss = task.loss({**data, "x": torch.zeros_like(data["x"])})
    loss.value.backward()
    assert all(value.isfinite() for value in (loss.value, *loss.metrics.values()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


def test_impossible_options_are_one_clear_line() -> None:
    with pytest.raises(UserError, match="amount"):
        Denoising(encoder(), amount=1.5)
    with pytest.raises(UserError, match="masking"):
        Denoising(encoder(), corruption="maskin")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="latent"):
        VAE(encoder(), latent=0)

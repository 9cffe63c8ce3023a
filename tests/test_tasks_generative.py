"""What the generative tasks promise beyond the contract of every task."""

import pytest
import torch

from selfsup.encoders import build_encoder
from selfsup.errors import UserError
from selfsup.nn import noise
from selfsup.nn.detached import detached
from selfsup.spec import ImageSpec
from selfsup.tasks.image.bigan import BiGAN
from selfsup.tasks.image.combined import Combined
from selfsup.tasks.image.context_encoder import ContextEncoder
from selfsup.tasks.image.denoising import Denoising
from selfsup.tasks.image.vae import VAE
from selfsup.tasks.options import check_ranges
from selfsup.tasks.resolve import resolve_task
from support.sources import images

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
    corrupted, _ = Denoising(encoder(), corruption_ratio=0.4).corrupt(data)
    changed = (corrupted != data["x"]).any(1)
    assert changed.float().mean().item() == pytest.approx(0.4, abs=0.02)
    assert pixels(corrupted).permute(0, 2, 3, 1)[changed].abs().max() < 1e-5
    assert len({row.sum().item() for row in changed}) > 1, "each image has its own pixels"


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
    task, data = VAE(encoder(), latent_dim=5, beta=3.0).eval(), batch()
    mean, log_variance = task.posterior(data["x"])
    q = torch.distributions.Normal(mean, (log_variance / 2).exp())
    z = mean + q.scale * noise.normal(data["noise"], 5)
    p = torch.distributions.Normal(task.decoder(z), 1.0)
    constant = 0.5 * torch.log(torch.tensor(2 * torch.pi)) * data["x"][0].numel()
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum(1)
    expected = (-p.log_prob(data["x"]).sum((1, 2, 3)) - constant + 3 * kl).mean()
    torch.testing.assert_close(task.loss(data).value, expected)


def test_the_representation_of_the_vae_is_the_mean() -> None:
    task, data = VAE(encoder(), latent_dim=5).eval(), batch()
    kept = task.representation()
    assert kept.dim == 5
    torch.testing.assert_close(kept(data["x"]), task.posterior(data["x"])[0])


def gradients(task, value: torch.Tensor, child: str) -> list[torch.Tensor]:
    return torch.autograd.grad(value, list(getattr(task, child).parameters()), retain_graph=True)


def test_the_players_of_bigan_get_the_gradients_of_their_own_losses_alone() -> None:
    task, data = BiGAN(encoder(), latent_dim=4, hidden_dim=16, discriminator_dim=4, l2=0.0), batch()
    z = task.draw(data["noise"])
    codes, images = 2 / (1 + (-task.code(task.encoder(data["x"]))).exp()) - 1, task.generate(z)
    real, fake = task.discriminator(data["x"], codes), task.discriminator(images, z)
    told = -(torch.sigmoid(real).log() + (1 - torch.sigmoid(fake)).log()).mean()
    fooled = -((1 - torch.sigmoid(real)).log() + torch.sigmoid(fake).log()).mean()
    value = task.loss(data).value
    torch.testing.assert_close(value, told + fooled)
    for child, own in (("discriminator", told), ("generator", fooled), ("code", fooled), ("encoder", fooled)):
        for mine, expected in zip(gradients(task, value, child), gradients(task, own, child), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-6)


def test_the_weights_of_bigan_decay_in_the_gradient_and_the_loss_is_that_of_the_players() -> None:
    tasks = [BiGAN(encoder(), latent_dim=4, hidden_dim=16, dense=True, l2=l2) for l2 in (0.0, 0.5)]
    tasks[1].load_state_dict(tasks[0].state_dict())
    losses = [task.loss(batch()).value for task in tasks]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for one, other in zip(*(task.parameters() for task in tasks), strict=True):
        torch.testing.assert_close(other.grad - one.grad, 0.5 * one if one.ndim > 1 else 0 * one, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_of_bigan_is_constant_and_then_falls_to_a_hundredth() -> None:
    task, found = BiGAN(encoder(), latent_dim=4), []
    for task.progress in (0.0, 0.3, 0.5, 0.75, 1.0):
        found.append(task.lr_of("generator", 0.7, 2.0))
    assert found == pytest.approx([2.0, 2.0, 2.0, 0.2, 0.02])


def test_codes_enter_the_second_layer_of_both_players_of_the_dense_bigan_by_weights_of_their_own() -> None:
    task, data = BiGAN(encoder(), latent_dim=4, hidden_dim=16, dense=True), batch()
    z = task.draw(data["noise"])
    with torch.no_grad():
        before = task.discriminator(data["x"], z), task.generate(z)
        task.discriminator.of_code.weight.zero_()
        task.generator.again.weight.zero_()
        after = task.discriminator(data["x"], z), task.generate(z)
        blind = task.discriminator(data["x"], -z), task.generate(-z)
    assert (before[0] - after[0]).abs().max() > 1e-3
    assert (before[1] - after[1]).abs().max() > 1e-3
    torch.testing.assert_close(blind[0], after[0])
    assert (blind[1] - after[1]).abs().max() > 1e-3, "z is the input of the generator's first layer"
    assert task.infer(data["x"]).abs().max() < 1
    torch.testing.assert_close(task.representation()(data["x"]).sigmoid() * 2 - 1, task.infer(data["x"]))


def test_bigan_draws_codes_from_the_cube_and_generates_pixels() -> None:
    task, data = BiGAN(encoder(), latent_dim=50), batch(64)
    z = task.draw(data["noise"])
    assert -1 < z.min() < -0.99
    assert 0.99 < z.max() < 1
    made = pixels(task.generate(z))
    assert made.min() >= -1e-5
    assert made.max() <= 1 + 1e-5
    assert task.representation().dim == 50


def test_the_permutation_invariant_bigan_does_not_know_the_order_of_pixels() -> None:
    order = torch.randperm(3 * 16 * 16, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    task, data = BiGAN(build_encoder("mlp", SPEC), latent_dim=4, hidden_dim=16, dense=True).eval(), batch()
    before = task.encoder(data["x"])
    with torch.no_grad():
        task.encoder.layers[1].weight.copy_(task.encoder.layers[1].weight[:, order])
    torch.testing.assert_close(task.encoder(data["x"].flatten(1)[:, order].view_as(data["x"])), before)
    assert not any(isinstance(module, torch.nn.Conv2d) for module in task.modules())


def test_the_players_of_the_context_encoder_get_the_gradients_of_their_own_losses_alone() -> None:
    task, data = ContextEncoder(encoder(), adversarial_weight=0.5, decoder_dim=4), batch()
    region, hole = task.regions(data["noise"])
    filled = task.decoder(task.encoder(data["x"] * (1 - hole)))
    weight = region * (10 - 9 * hole)
    error = ((weight * (filled - data["x"]).square()).sum((1, 2, 3)) / (3 * region.sum((1, 2, 3)))).mean()
    real, fake = task.discriminator(region * data["x"]), task.discriminator(region * filled)
    generator = 0.5 * error - 0.5 * torch.sigmoid(fake).log().mean()
    told = -(torch.sigmoid(real).log() + (1 - torch.sigmoid(fake)).log()).mean()
    value = task.loss(data).value
    torch.testing.assert_close(value, generator + told)
    for child, own in (("discriminator", told), ("decoder", generator), ("encoder", generator)):
        for mine, expected in zip(gradients(task, value, child), gradients(task, own, child), strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-3, atol=1e-5)
    assert task.lr_of("discriminator", 0.5, 1.0) == 0.05
    assert task.lr_of("decoder", 0.5, 1.0) == 0.5


def test_regions_are_the_centre_or_a_quarter_of_any_shape_with_a_band_around_the_hole() -> None:
    key = batch(20)["noise"]
    region, hole = ContextEncoder(encoder()).regions(key)
    assert region.mean().item() == 0.25
    assert hole[0].sum().item() == 6 * 6, "a band of one pixel within the eight"
    region, hole = ContextEncoder(encoder(), region="random").regions(key)
    torch.testing.assert_close(hole.mean((1, 2, 3)), torch.full((20,), 0.25), atol=0.01, rtol=0)
    assert (hole <= region).all()
    assert len({tuple(row.flatten().tolist()) for row in region}) == 20


def test_dead_units_of_a_vae_are_0_in_its_representation_and_never_all_of_them() -> None:
    task, data = VAE(encoder(), latent_dim=6).eval(), batch(32)
    with torch.no_grad():
        task.mean.weight.mul_(torch.tensor([1e-3, 100.0, 1e-3, 100.0, 100.0, 1e-3])[:, None])
    before = task.representation()(data["x"])
    assert (before[:, 0] != 0).all(), "nothing is dead before it was seen to be"
    kept = task.representation()

    def learn(steps: int) -> None:
        task.loss(data)
        mean = task.seen
        for _ in range(steps):
            task.seen = mean
            task.after_step()

    learn(60)
    after = kept(data["x"])
    assert task.active.tolist() == [0, 1, 0, 1, 1, 0]
    assert task.loss(data).metrics["active"] == 3
    assert (after[:, [0, 2, 5]] == 0).all()
    torch.testing.assert_close(after[:, [1, 3, 4]], before[:, [1, 3, 4]])
    with torch.no_grad():
        task.mean.weight.zero_()
    learn(200)
    assert task.active.all(), "an encoder that says nothing at all is kept as it is"


def test_the_context_encoder_does_not_see_what_is_in_the_hole() -> None:
    task, data = ContextEncoder(encoder()).eval(), batch()
    _, hole = task.regions(data["noise"])
    other = {**data, "x": data["x"] + 5 * hole}
    seen = [task.panels(d)[0][0].content for d in (data, other)]
    torch.testing.assert_close(*seen)


def test_combined_is_the_weighted_sum_of_its_parts_and_makes_equal_views_once() -> None:
    options = {"rotation.pad": 0, "rotation.flip": 0.0}
    task = Combined(encoder(), tasks="rotation, denoising", loss_weights="1,3", options=options).eval()
    assert list(task.views(SPEC).made.groups) == ["rotation.x"]
    data = batch()
    got = task.loss({"rotation.x": data["x"], "denoising.x": data["x"], "noise": data["noise"]})
    parts = [task.parts[name].loss(data).value for name in ("rotation", "denoising")]
    torch.testing.assert_close(got.value, parts[0] + 3 * parts[1])
    assert got.metrics["rotation_accuracy"] >= 0
    apart = Combined(encoder()).views(SPEC)
    assert len(apart.made.groups) == 2, "rotation shifts and flips, denoising does not"


def test_parts_of_combined_take_from_the_data_what_they_take_alone() -> None:
    source, given = images(), {"tasks": "moco,instance,deepcluster", "options": {"deepcluster.num_clusters": 7}}
    _, kind, values, _ = resolve_task("combined", source, given)
    assert values["options"] == {
        "moco.queue_size": 64, "instance.num_items": 64, "deepcluster.num_items": 64, "deepcluster.num_clusters": 7,
    }  # fmt: skip
    parts = kind(encoder(), **values).parts
    assert [len(parts["moco"].queue.rows), len(parts["instance"].bank)] == [64, 64]
    with pytest.raises(UserError, match="instance needs num_items"):
        Combined(encoder(), tasks="rotation,instance")
    assert resolve_task("combined", source, {})[2]["options"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": "rotation"}, "two or more"),
        ({"tasks": "rotation,rotatoin"}, "rotation"),
        ({"tasks": "rotation,supervised"}, "supervised"),
        ({"tasks": "rotation,split_brain"}, "changes its encoder"),
        ({"loss_weights": "1"}, "2 positive numbers"),
        ({"options": {"rotation.pda": 1}}, "rotation.pad"),
        ({"options": {"rotation.flip": 3.0}}, r"--flip must be in \[0, 1\]"),
    ],
)
def test_what_cannot_be_combined_is_one_clear_line(options, message) -> None:
    with pytest.raises(UserError, match=message):
        Combined(encoder(), **options)


@pytest.mark.parametrize("kind", [BiGAN, ContextEncoder, Denoising, VAE])
def test_constant_images_have_a_finite_loss_and_gradient(kind) -> None:
    task, data = kind(encoder()), batch()
    loss = task.loss({**data, "x": torch.zeros_like(data["x"])})
    loss.value.backward()
    assert all(value.isfinite() for value in (loss.value, *loss.metrics.values()))
    assert all(p.grad is None or p.grad.isfinite().all() for p in task.parameters())


def test_impossible_options_are_one_clear_line() -> None:
    with pytest.raises(UserError, match="masking"):
        Denoising(encoder(), corruption="maskin")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--latent-dim must be in"):
        check_ranges(VAE, {"latent_dim": 0})

"""The transformer over samples, its tasks, and what they are made of."""

import math

import numpy as np
import pytest
import torch

from selfsup.data.audio.melody import Melody
from selfsup.encoders import build_encoder
from selfsup.encoders.audio.wave_transformer import WaveTransformer
from selfsup.errors import UserError
from selfsup.nn import noise
from selfsup.nn.audio.mel import log_mel
from selfsup.nn.audio.mfcc import mfcc
from selfsup.nn.audio.quantizer import Quantizer
from selfsup.nn.audio.spans import spans
from selfsup.nn.kmeans import kmeans, nearest
from selfsup.spec import WaveSpec
from selfsup.tasks.audio.hubert import HuBERT
from selfsup.tasks.audio.speed import CUT, RATES, Speed, resampled
from selfsup.tasks.audio.wav2vec2 import Wav2Vec2

SPEC = WaveSpec(16_000, 0.5, "wave", std=0.1)
KEYS = torch.arange(1, 33) * 7919


@pytest.fixture(scope="module")
def encoder() -> WaveTransformer:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    return build_encoder("wav2vec2-small", SPEC).eval()


def batch(task, count: int = 8) -> dict[str, torch.Tensor]:
    views = task.views(SPEC)
    return views.finish(views.fetch(Melody("melody", 16), np.arange(count), 0, 0).batch)


def test_a_masked_step_is_not_seen(encoder: WaveTransformer) -> None:
    x = torch.randn(2, SPEC.length)
    z = encoder.latents(x)
    assert z.shape == (2, (SPEC.length - 400) // 320 + 1, encoder.latent_dim)
    assert (encoder.stride, encoder.reach) == (320, 400)
    torch.testing.assert_close(encoder.contexts(z), encoder.frames(x))
    mask = torch.zeros(2, z.shape[1], dtype=torch.bool)
    mask[:, 5:9] = True
    changed = z.clone()
    changed[:, 5:9] = torch.randn(2, 4, z.shape[2])
    token = torch.ones(encoder.dim)
    torch.testing.assert_close(encoder.contexts(z, mask, token), encoder.contexts(changed, mask, token))
    assert (encoder.contexts(z) - encoder.contexts(changed)).abs().max() > 0.01


def test_parts_of_the_transformer(encoder: WaveTransformer) -> None:
    x = torch.randn(2, SPEC.length)
    tokens = encoder.tokens(encoder.latents(x))
    every = encoder.mlp_outputs(tokens, 4)
    assert len(every) == encoder.depth == 4
    assert torch.equal(encoder.mlp_outputs(tokens, 1)[0], every[-1])
    half = encoder.first_blocks(2)
    torch.testing.assert_close(half.mlp_outputs(tokens, 2), every[:2])
    assert not any(p.requires_grad for p in half.parameters())
    assert all(p.requires_grad for p in encoder.parameters())


def test_it_is_exported(encoder: WaveTransformer) -> None:
    program = torch.export.export(encoder, (SPEC.example(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    x = torch.randn(3, SPEC.length)
    torch.testing.assert_close(program.module()(x), encoder(x), rtol=1e-4, atol=1e-4)


def test_models_of_transformers_by_their_configuration(tmp_path) -> None:
    hf = pytest.importorskip("transformers")
    small = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
        "conv_dim": [8] * 7, "num_conv_pos_embeddings": 15, "num_conv_pos_embedding_groups": 2,
    }  # fmt: skip
    for config in (hf.HubertConfig(**small), hf.Data2VecAudioConfig(**small)):
        config.save_pretrained(tmp_path / config.model_type)
        found = build_encoder(str(tmp_path / config.model_type), SPEC)
        assert found(torch.randn(2, SPEC.length)).shape == (2, 16)
        assert not [name for name, _ in found.named_parameters() if "masked" in name]
    hf.HubertModel(hf.HubertConfig(**small)).save_pretrained(tmp_path / "weights")
    build_encoder(str(tmp_path / "weights"), SPEC, pretrained=True)
    hf.BertConfig().save_pretrained(tmp_path / "bert")
    for name, spec, told in (
        (str(tmp_path / "bert"), SPEC, "is a bert model"), ("nobody/nothing", SPEC, "no such|nothing"),
        ("wav2vec2-small", WaveSpec(16_000, 0.5), "--form wave"), ("audio-cnn", SPEC, "--form logmel"),
        ("wav2vec2-small", WaveSpec(16_000, 0.02, "wave"), "more --seconds"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            build_encoder(name, spec)
    with pytest.raises(UserError, match="no pretrained weights"):
        build_encoder("wav2vec2-small", SPEC, pretrained=True)


def test_spans_are_long_and_of_one_number() -> None:
    masked = spans(KEYS, 99, 50, 10)
    assert (masked.sum(1) == 50).all()
    assert len({tuple(row.tolist()) for row in masked}) == len(KEYS)
    edges = masked.int().diff(dim=1, prepend=torch.zeros(len(KEYS), 1, dtype=torch.int)).eq(1).sum(1)
    assert edges.float().mean() < 5.5, "runs of ten steps or more, but for one"
    assert (spans(KEYS, 5, 3, 5).sum(1) == 3).all(), "a span as long as the window"


def test_mfcc_are_those_of_scipy() -> None:
    from scipy.fft import dct

    x = 0.1 * torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    found = mfcc(x, SPEC)
    assert found.shape == (2, 26, 39)
    bands = log_mel(x, WaveSpec(16_000, 0.5, "logmel", 40))[:, 0].numpy()
    expected = dct(bands, type=2, norm="ortho", axis=1)[:, :13].transpose(0, 2, 1)
    np.testing.assert_allclose(found[..., :13].numpy(), expected, rtol=1e-3, atol=1e-3)
    slope = np.polyfit(np.arange(5), expected[0, 8:13], 1)[0]
    np.testing.assert_allclose(found[0, 10, 13:26].numpy(), slope, rtol=1e-2, atol=1e-3)


def test_kmeans_finds_clusters_of_other_lengths() -> None:
    torch.manual_seed(0)
    middles = torch.arange(1, 6)[:, None] * torch.ones(5, 3)  # one direction: a cosine would not tell them apart
    x = (middles[:, None] + 0.05 * torch.randn(5, 40, 3)).flatten(0, 1)
    best = max(len(set(kmeans(x, 5, seed)[1].view(5, 40).mode(1).values.tolist())) for seed in range(8))
    assert best == 5
    centroids, label = kmeans(x, 12, 0)
    assert torch.equal(nearest(x, centroids), torch.cdist(x, centroids).argmin(1))
    assert len(label.unique()) == 12


def test_the_quantizer_uses_many_codes_and_its_perplexity_is_one_of_counts() -> None:
    torch.manual_seed(0)
    quantizer = Quantizer(16, 2, 20, 8)
    vectors, chosen, probabilities = quantizer(torch.randn(32, 25, 16), KEYS, 0.0)
    assert vectors.shape == (32, 25, 8)
    assert chosen.shape == (32, 25, 2)
    assert 15 < quantizer.perplexity(probabilities).item() <= 40
    one = torch.zeros(4, 5, 2, 20)
    one[..., 3] = 1
    assert float(quantizer.perplexity(one)) == pytest.approx(2)
    assert float(quantizer.perplexity(torch.full((4, 5, 2, 20), 1 / 20))) == pytest.approx(40)
    with pytest.raises(UserError, match="--out-dim"):
        Quantizer(16, 3, 20, 8)
    warm, cold = (quantizer(torch.zeros(32, 25, 16), KEYS, progress)[1] for progress in (0.0, 1.0))
    assert torch.equal(warm, cold), "the temperature changes the gradient, not the choice"


def test_negatives_of_wav2vec2_are_other_codes(encoder: WaveTransformer) -> None:
    torch.manual_seed(0)
    task = Wav2Vec2(encoder, num_negatives=5)
    given = batch(task)
    logits, chosen, _, _ = task._compared(encoder.latents(given["x"]), given["noise"])
    assert (logits.isfinite().sum(2) <= 6).all()
    assert logits.diagonal(dim1=1, dim2=2).isfinite().all()
    assert task.loss(given).chance == pytest.approx(math.log(6))
    b, step, other = logits.isfinite().nonzero().unbind(1)
    apart = step != other
    assert (chosen[b, step] != chosen[b, other]).any(1)[apart].all()
    with torch.no_grad():
        task.quantizer.score.weight.zero_()
        task.quantizer.score.bias[[0, 320]] = 100
    found = task.loss(given)
    assert float(found.metrics["contrast"]) == 0, "a collapse"
    assert float(found.metrics["codes"]) == pytest.approx(2)


def test_the_second_round_of_hubert_is_of_the_encoder_itself(encoder: WaveTransformer) -> None:
    torch.manual_seed(0)
    task = HuBERT(encoder, num_units=8, out_dim=16)
    task.samples(Melody("melody", 16))
    given = batch(task)
    first = task.sound(given["x"])
    assert len(first.unique()) > 3
    task.progress = 0.4
    task.after_step()
    assert not task.sound.second
    task.progress = 0.5
    task.after_step()
    assert task.sound.second
    torch.testing.assert_close(task.sound.teacher.frames(given["x"]), encoder.first_blocks(2).frames(given["x"]))
    second = task.sound(given["x"])
    assert (first != second).any()
    copy = HuBERT(build_encoder("wav2vec2-small", SPEC), num_units=8, out_dim=16)
    copy.samples(Melody("melody", 8))
    copy.load_state_dict(task.state_dict())
    assert torch.equal(copy.eval().sound(given["x"]), second), "what is stored decides the units"


def test_encoders_without_masks_are_refused() -> None:
    with pytest.raises(UserError, match="--encoder wav2vec2-small"):
        Wav2Vec2(build_encoder("conv-gru", SPEC))
    with pytest.raises(UserError, match="--form wave"):
        Speed(build_encoder("audio-cnn", WaveSpec(16_000, 0.5)))


def test_a_window_of_too_few_steps_is_refused(encoder: WaveTransformer) -> None:
    with pytest.raises(UserError, match="more --seconds or another ratio"):
        Wav2Vec2(encoder, mask_ratio=0.01)


@pytest.mark.parametrize(("up", "down"), RATES)
def test_a_faster_tone_is_higher(up: int, down: int) -> None:
    time = torch.arange(8000) / 16_000
    tone = resampled(torch.sin(2 * math.pi * 1000 * time)[None], up, down)[0]
    assert len(tone) == pytest.approx((8000 - 2 * 16 * up / down) * down / up, abs=2 * down)
    heard = math.ceil(16 * up / down) + torch.arange(len(tone)) * up / down  # in samples of what was recorded
    torch.testing.assert_close(tone, torch.sin(2 * math.pi * 1000 / 16_000 * heard), rtol=0, atol=0.01)
    high = torch.sin(2 * math.pi * 16_000 * (CUT + 0.06) * down / up * time)[None]
    if (CUT + 0.06) * down / up < 0.5:
        assert resampled(high, up, down).abs().max() < 0.03, "above the cut there is nothing"


def test_noise_says_nothing_about_its_rate() -> None:
    x = torch.randn(64, 16_000, generator=torch.Generator().manual_seed(0))
    spectra = []
    for up, down in RATES:
        power = torch.fft.rfft(resampled(x, up, down)[:, :8000]).abs().square().mean(0)
        spectra.append(power[: int(0.48 * 8000)].view(-1, 120).mean(1))
    spectra = torch.stack(spectra)
    spectra = spectra / spectra[:, :10].mean(1, keepdim=True)
    assert (spectra.amax(0) - spectra.amin(0)).max() < 0.1


def test_each_sample_has_a_rate_of_its_own() -> None:
    task = Speed(build_encoder("conv-gru", SPEC))
    x, label = task.played(torch.randn(32, SPEC.length), KEYS)
    assert x.shape[0] == 32
    assert x.shape[1] == pytest.approx(SPEC.length / 1.5, abs=50)
    assert torch.equal(label, noise.integers(KEYS, 4))
    assert len(label.unique()) == 4

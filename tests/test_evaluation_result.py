"""The result object: prints, reads back, becomes a data frame and an image."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file

import selfsup
from selfsup.data.image import Arrays
from selfsup.data.open import open_data
from selfsup.errors import RunFailed, UserError
from selfsup.evaluation.attentive import fit_attentive
from selfsup.evaluation.reference import load_reference
from selfsup.evaluation.result import Evaluation
from selfsup.source import Labels


@pytest.fixture(scope="module")
def result(one_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    run = shutil.copytree(one_run, tmp_path_factory.mktemp("evaluated") / "run")
    digits = open_data("digits")
    few = digits.take(np.arange(0, len(digits), 9))
    return selfsup.evaluate(
        run, data=few, test=digits.take(np.arange(1, len(digits), 5)), shots="1,5,all", draws=2,
        protocol="linear,finetune", metrics="retrieval,clustering,label-free", quiet=True,
    )  # fmt: skip


def test_it_reads_back_what_it_saved(result: Evaluation, tmp_path: Path) -> None:
    result.save(tmp_path / "e.json")
    again = Evaluation.load(tmp_path / "e.json")
    assert again.as_json() == result.as_json()
    assert str(again) == str(result)
    with pytest.raises(RunFailed, match="cannot write"):
        result.save(tmp_path)


def test_damaged_files_are_one_line(result: Evaluation, tmp_path: Path) -> None:
    def damaged(change) -> str:
        plain = json.loads(json.dumps(result.as_json()))
        change(plain)
        return json.dumps(plain)

    path = tmp_path / "e.json"
    for text in (
        "", "[]", "{}", "null",
        damaged(lambda p: p.pop("about")),
        damaged(lambda p: p["scores"].clear()),
        damaged(lambda p: p["scores"][0].update(mean=float("nan"))),
        damaged(lambda p: p["scores"][0].update(shots=-1)),
        damaged(lambda p: p["scores"][0].update(values="x")),
        damaged(lambda p: p["saved"].update(linear=[{}])),
        damaged(lambda p: p["about"].update(chance=None)),
        damaged(lambda p: p["about"].update(chance="")),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(UserError, match="is not a saved evaluation") as error:
            Evaluation.load(path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="is not a saved evaluation"):
        Evaluation.load(tmp_path / "missing.json")


def test_a_data_frame_has_a_row_a_score(result: Evaluation) -> None:
    frame = pytest.importorskip("pandas") and result.to_pandas()
    assert len(frame) == len(result.scores)
    assert {"representation", "protocol", "shots", "labels", "accuracy", "half", "macro F1"} <= set(frame.columns)
    assert frame["shots"].isna().sum() == sum(score.shots is None for score in result.scores)
    every = frame[frame["shots"].isna()]
    assert every["labels"].to_numpy() == pytest.approx(20, abs=0.1), "about 200 samples of 10 classes"


def test_the_image_has_every_curve(result: Evaluation, tmp_path: Path) -> None:
    figure = result.plot()
    assert isinstance(figure, Figure)
    (panel,) = figure.axes
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    scratch = ["from scratch", "from scratch + pool"]
    assert names == ["rotation", "untrained", "PCA", "raw pixels", "rotation, fine-tuned", *scratch]
    figure.savefig(tmp_path / "curve.png")


def test_verdict_and_headline_stand_above_the_table(result: Evaluation) -> None:
    assert str(result).startswith("It ")
    assert "\nLabels saved: with 5 labels per class rotation (linear) reaches" in str(result)
    assert set(result.saved) == {"linear", "finetune"}
    assert [entry.shots for entry in result.saved["linear"]] == pytest.approx([1, 5, 20], abs=0.1)
    assert result.as_json()["headline"] == result.headline


def test_the_headline_metric_is_accuracy_and_others_are_beside_it(result: Evaluation) -> None:
    score = result.score("rotation", "linear", 5)
    assert set(score.also) == {"balanced accuracy", "macro F1"}
    assert score.also["balanced accuracy"][0] == pytest.approx(score.mean, abs=0.05), "nearly balanced classes"


def test_extra_metrics_of_every_frozen_representation(result: Evaluation) -> None:
    assert set(result.metrics) == {"rotation", "untrained", "raw pixels"}
    for row in result.metrics.values():
        assert 0.1 < row["R@1"] <= row["R@5"] <= row["R@10"] <= 1
        assert 0 <= row["mAP"] <= 1
        assert row["NMI"] > 0.1
        assert row["RankMe"] >= 1
        assert row["LiDAR"] >= 1
        assert row["alignment"] > 0, "the views differ"
    assert result.about["views"] == "the views of pretraining"
    assert "cluster accuracy" in str(result)


def test_transformers_are_read_by_attention(tmp_path: Path) -> None:
    digits = open_data("digits")
    few = digits.take(np.arange(0, len(digits), 24))
    run = selfsup.pretrain(
        few, encoder="test_vit", steps=1, batch_size=8, lr=2e-3, out=tmp_path / "run", size=16, quiet=True, workers=0
    )
    result = selfsup.evaluate(
        run, data=few, protocol="linear,attentive", shots="all", draws=2, scratch=False, quiet=True
    )
    read = {s.representation for s in result.scores if s.protocol == "attentive"}
    assert read == {"rotation", "untrained"}
    assert result.score("rotation", "attentive", None).mean > 0.2  # chance 0.1; 15 samples are tested


def test_attention_finds_the_token_that_tells() -> None:
    """One token of nine carries the class, at a place that changes, beside a mark: the mean of tokens hides it."""
    rng = np.random.default_rng(0)
    y = np.arange(800) % 4
    tokens = rng.normal(size=(800, 9, 16)).astype(np.float32)
    place = rng.integers(0, 9, 800)
    tokens[np.arange(800), place] = 0
    tokens[np.arange(800), place, y] = 5
    tokens[np.arange(800), place, 15] = 12
    probe = fit_attentive(tokens[:400], y[:400], 4)
    assert np.mean(probe.predict(tokens[400:]) == y[400:]) > 0.9


def test_a_reference_comes_from_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_run: Path
) -> None:
    import timm

    model = timm.create_model("test_vit", pretrained=False)
    with torch.no_grad():
        model.patch_embed.proj.bias.fill_(0.25)
    folder = tmp_path / "models--timm--test_vit.r160_in1k" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket", lambda *a, **k: pytest.fail("it asked the network"))
    reference = load_reference("test_vit")
    assert reference.spec.channels == 3
    assert reference.encoder.model.patch_embed.proj.bias.mean().item() == 0.25
    x = np.random.default_rng(0).integers(0, 255, (24, 8, 8), dtype=np.uint8)
    source = Arrays(x, Labels.of(["a", "b"] * 12))
    result = selfsup.evaluate(
        finished_run, data=source, reference="test_vit", shots="2", draws=2, scratch=False, quiet=True
    )
    assert result.score("test_vit", "linear", 2).mean >= 0

"""The scikit-learn estimator: scikit-learn's own checks, pipelines, searches, and what it refuses."""

import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import parallel_config
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import selfsup
from selfsup.errors import UserError
from selfsup.sklearn import InputError, SelfSupervisedEncoder


class OnFloats(SelfSupervisedEncoder):
    """The estimator with one step replaced: behind scikit-learn's own validation, each row of floats, of whatever
    length, becomes an image. So every check runs, and everything that it looks at is the estimator's."""

    def _images(self, rows):
        grey = np.clip(128 + 20 * np.asarray(rows, dtype=np.float64), 0, 255).astype(np.uint8)
        return np.pad(grey, ((0, 0), (0, 64)), "wrap")[:, :64].reshape(-1, 8, 8)


AS_TRAINED = {"recalibrate": False}  # BatchNorm of these images enlarges float32's rounding beyond the checks' 1e-7


@parametrize_with_checks([OnFloats(steps=2, batch_size=8, options=AS_TRAINED)])
def test_scikit_learn_checks(estimator: SelfSupervisedEncoder, check) -> None:
    check(estimator)


@pytest.mark.parametrize("shape", [None, (8, 8)])
def test_rows_of_floats_of_another_length_are_refused(shape: tuple[int, int] | None) -> None:
    """What scikit-learn's checks feed: rows of floats that no image has; see `OnFloats` for what lies behind."""
    estimator = SelfSupervisedEncoder(steps=2, batch_size=8, shape=shape)
    with pytest.raises(InputError, match="shape"):
        estimator.fit(np.random.default_rng(0).normal(size=(20, 3)))


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 300 digits, (300, 8, 8) uint8, and their classes."""
    x, y = load_digits(return_X_y=True)
    return (x[:300] * 15.9).astype(np.uint8).reshape(-1, 8, 8), y[:300]


def quick(**given) -> SelfSupervisedEncoder:
    return SelfSupervisedEncoder(**{"steps": 5, "batch_size": 32, **given})


def test_arrays_rows_and_files_are_the_same_images(digits, tmp_path: Path) -> None:
    x = np.repeat(digits[0][:60, :, :, None], 3, axis=3)
    features = quick().fit(x).transform(x)
    assert features.shape == (60, 128)
    assert features.dtype == np.float32
    rows = x.reshape(60, -1)
    np.testing.assert_array_equal(quick(shape=(8, 8, 3)).fit_transform(rows), features)
    paths = [tmp_path / f"{number}.png" for number in range(60)]
    for path, pixels in zip(paths, x, strict=True):
        Image.fromarray(pixels).save(path)
    fitted = quick(steps=2).fit(paths)
    np.testing.assert_allclose(
        fitted.transform(np.array([str(path) for path in paths])), fitted.transform(x), atol=1e-4
    )
    paths[3].write_bytes(b"no image")
    assert fitted.fit(paths) is fitted, "a file that cannot be read is left out of training"
    with pytest.raises(InputError, match=r"1 images cannot be read, for example '.*3\.png': not an image"):
        fitted.transform(paths)


def test_grid_search_over_a_pipeline_in_two_processes(digits) -> None:
    x, y = digits
    pipeline = make_pipeline(quick(), LogisticRegression(max_iter=1000))
    name = "selfsupervisedencoder"
    grid = {f"{name}__options": [{"pad": 0, "flip": 0.0}, {"pad": 2}], f"{name}__lr": [1e-3]}
    with parallel_config("multiprocessing"):  # copies of this one, which need not import everything again
        search = GridSearchCV(pipeline, grid, cv=2, n_jobs=2, error_score="raise").fit(x, y)
    assert search.best_score_ > 0.5
    again = clone(search.best_estimator_).fit(x, y)
    np.testing.assert_array_equal(again[0].transform(x), search.best_estimator_[0].transform(x))
    assert again[0].get_feature_names_out()[[0, -1]].tolist() == [f"{name}0", f"{name}127"]


def test_nothing_is_left_behind_unless_asked_for(digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    before = torch.random.get_rng_state()
    kept = quick().fit(digits[0])
    assert torch.equal(torch.random.get_rng_state(), before), "the caller's generator is left alone"
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(kept)).transform(digits[0]), quick(out="run").fit(digits[0]).transform(digits[0])
    )
    assert selfsup.Run(tmp_path / "run").done


def test_seed(digits) -> None:
    x = digits[0]
    one, two, state = (quick(random_state=seed).fit(x).transform(x[:2]) for seed in (0, 1, np.random.RandomState(0)))
    assert not np.allclose(one, two)
    assert not np.allclose(one, state)


def test_labels_reach_the_tasks_that_need_them_alone(digits) -> None:
    x, y = digits
    few = np.where(np.arange(len(y)) < 100, y, -1)
    assert quick(task="s4l").fit(x, few).transform(x).shape == (300, 128)
    with pytest.raises(InputError, match="this task needs labels: give y"):
        quick(task="s4l").fit(x)
    with pytest.raises(InputError, match="299 labels y for 300 images X"):
        quick(task="supervised").fit(x, y[1:])


@pytest.mark.parametrize(
    ("x", "given", "message"),
    [
        (np.zeros((9, 64), np.uint8), {}, r"X has the shape \(9, 64\): for images in rows give shape=\(H, W\)"),
        (np.zeros((9, 64), np.uint8), {"shape": (8, 9)}, r"shape \(8, 9\) does not fit X with 64 features"),
        (np.zeros((1, 8, 8), np.uint8), {}, "1 sample"),
        (["one.png"], {}, "1 sample"),
        ("photos/", {}, "X is one path"),
        (np.zeros((9, 8, 8), np.uint8), {"task": "rotatoin"}, "did you mean 'rotation'"),
        (np.zeros((9, 8, 8), np.uint8), {"options": {"pda": 1}}, "did you mean 'pad'"),
        (np.zeros((9, 8, 8), np.uint8), {"epochs": 1}, "only one of"),
    ],
)
def test_bad_input_is_one_line(x, given, message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message) as caught:
        quick(**given).fit(x)
    assert "\n" not in str(caught.value)


def test_transform_checks_too(digits) -> None:
    fitted = quick(shape=(8, 8)).fit(digits[0].reshape(300, 64))
    with pytest.raises(ValueError, match="X has 63 features, but SelfSupervisedEncoder is expecting 64"):
        fitted.transform(np.zeros((2, 63), np.uint8))
    assert fitted.transform(np.zeros((2, 12, 9), np.uint8)).shape == (2, 128), "another size is scaled"


def test_importing_selfsup_imports_neither_torch_nor_scikit_learn() -> None:
    code = "import sys, selfsup; sys.exit(bool({'torch', 'sklearn', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    code = "import sys, selfsup.sklearn as s; s.SelfSupervisedEncoder(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_data_frame_of_one_column_texts_and_a_module_of_ones_own(make_folder) -> None:
    paths = [str(path) for path in sorted(make_folder().rglob("*.png"))]
    table = pytest.importorskip("pandas").DataFrame({"file": paths})
    fitted = quick(steps=1, batch_size=8).fit(paths)
    np.testing.assert_array_equal(fitted.transform(table), fitted.transform(paths))
    texts = [f"number {number} is {'odd' if number % 2 else 'even'}" for number in range(20)]
    bert = quick(task="bert", encoder="bert-tiny", steps=1, batch_size=8)
    assert bert.fit_transform(texts).shape == (20, 128)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    assert clone(quick(encoder=net, steps=1, batch_size=8)).fit_transform(table).shape == (8, 4)

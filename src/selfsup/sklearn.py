"""`SelfSupervisedEncoder`: pretraining and features as a scikit-learn transformer. Imports torch only in `fit`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, check_random_state, validate_data

from selfsup.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from selfsup.source import Labels, Source
    from selfsup.task import Task


class InputError(UserError, ValueError):
    """Bad input, as a `UserError` and as the ValueError that scikit-learn expects."""


class SelfSupervisedEncoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learn an encoder from images or texts without labels; transform them to its features.

    X is a uint8 array (N, H, W) or (N, H, W, C); a list, a 1-D array or a data frame with one column of N image files,
    or of N texts; or, with `shape`, a uint8 array (N, features). Images to transform may have another size than those
    of `fit`: they are scaled to it.

    Args:
        task: A name of `selfsup tasks`, or a `Task` class.
        encoder: convnet, or any image model of timm; for texts bag-of-words, bert-mini and others, see
            `selfsup.pretrain`; or a torch module of your own, (B, …) -> (B, dim).
        steps: Optimizer steps; or give epochs or minutes. The default is 100 epochs.
        epochs: Passes over X.
        minutes: Wall-clock time.
        batch_size: Samples per step; at most as many as X has.
        lr: Peak learning rate; None is the default of `selfsup.pretrain`.
        size: Pixels per side of what the encoder gets; None is the data's own, at most 224.
        shape: (H, W) or (H, W, C) of the images in the rows of a 2-D X.
        options: The task's own hyper-parameters, by name.
        out: The run folder, kept, and continued by the next `fit` with the same data; None trains in a temporary one.
            Leave it None in a grid search, in which several fits would share the folder.
        device: auto, cpu, cuda or mps.
        random_state: Seed of everything; None draws a new one each time.
        verbose: Show progress.

    Attributes:
        encoder_: The trained torch module, on the CPU: (B, C, H, W) normalized float -> (B, dim).
        spec_: What it takes: a `selfsup.spec.ImageSpec`, for texts a `TextSpec`.
        n_features_in_: Columns of X where that was 2-D.
    """

    def __init__(
        self,
        task: str | type[Task] = "rotation",
        encoder: str | nn.Module = "convnet",
        *,
        steps: int | None = None,
        epochs: float | None = None,
        minutes: float | None = None,
        batch_size: int = 128,
        lr: float | None = None,
        size: int | None = None,
        shape: Sequence[int] | None = None,
        options: Mapping[str, Any] | None = None,
        out: str | os.PathLike[str] | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
        verbose: bool = False,
    ) -> None:
        self.task = task
        self.encoder = encoder
        self.steps = steps
        self.epochs = epochs
        self.minutes = minutes
        self.batch_size = batch_size
        self.lr = lr
        self.size = size
        self.shape = shape
        self.options = options
        self.out = out
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:
        """Pretrain on X. `y` is read only by tasks that need labels: None, NaN or -1 for samples without one.

        Raises:
            InputError: For an X that is not as described in the class.
            UserError: For any other argument, as `selfsup.pretrain`.
        """
        import torch

        from selfsup.commands.pretrain import pretrain
        from selfsup.tasks import find_task

        source = self._source(X, fitting=True)
        task_class = find_task(self.task) if isinstance(self.task, str) else self.task
        if task_class.needs_labels:
            source.labels = _labels(y, len(source))
        state = self.random_state
        seed = int(state) if isinstance(state, Integral) else int(check_random_state(state).randint(2**31 - 1))
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))  # the caller's generator stays as it is
            folder = self.out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="selfsup-"))) / "run"
            run = pretrain(
                source,
                task=self.task,
                encoder=self.encoder,
                steps=self.steps,
                epochs=self.epochs,
                minutes=self.minutes,
                out=folder,
                size=self.size,
                batch_size=min(self.batch_size, len(source)),
                lr=self.lr,
                seed=seed,
                device=self.device,
                quiet=not self.verbose,
                **(self.options or {}),
            )
            encoder: Any = run.load(task_class)
        self.encoder_, self.spec_, self._n_features_out = encoder, run.spec, int(encoder.dim)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features (N, dim). Raises `InputError` for an X that is not as described, or cannot be read."""
        check_is_fitted(self)
        from selfsup.evaluation.features import extract
        from selfsup.source import Broken
        from selfsup.train.device import make_fabric

        source = self._source(X, fitting=False)
        device = make_fabric(self.device, "float32").device
        numbers, features = extract(self.encoder_, source, self.spec_, device, quiet=not self.verbose)
        self.encoder_.to("cpu")
        unread = sorted(set(range(len(source))) - set(numbers.tolist()))
        if unread:
            try:
                source.read(unread[0])
                reason = "unreadable"
            except Broken as error:
                reason = str(error)
            raise InputError(f"{len(unread)} images cannot be read, for example {source.path(unread[0])!r}: {reason}")
        return features

    def _source(self, X: Any, fitting: bool) -> Source:
        """Return the samples of X; `fit` needs at least two."""
        from selfsup.data.image import Arrays
        from selfsup.data.objects import open_object

        if isinstance(X, str | os.PathLike):
            raise InputError(f"X is one path, {str(X)!r}; give a list of image files")
        needed = 2 if fitting else 1
        if getattr(X, "ndim", 1) == 2 and X.shape[1] == 1 and _are_paths(column := np.asarray(X)[:, 0]):
            X = column  # a data frame of one column
        if _are_paths(X):
            if len(X) < needed:
                raise InputError(f"X names only 1 sample; {needed} are needed")
            rows = list(X)
            for row, path in enumerate(rows):
                if not isinstance(path, str | os.PathLike):
                    raise InputError(f"X names no image file in row {row}, but {path!r}; leave that row out")
            try:
                return open_object(rows)
            except UserError as error:
                raise InputError(str(error)) from None
        if getattr(X, "ndim", 0) > 2 or (isinstance(X, list) and np.ndim(X) > 2):
            pixels = check_array(X, dtype=None, allow_nd=True, ensure_min_samples=needed, input_name="X")
        else:
            pixels = validate_data(self, X, dtype=None, reset=fitting, ensure_min_samples=needed)
            pixels = self._images(pixels)
        try:
            return Arrays(pixels, name="X")
        except UserError as error:
            raise InputError(str(error)) from None

    def _images(self, rows: NDArray[Any]) -> NDArray[Any]:
        if self.shape is None:
            raise InputError(f"X has the shape {rows.shape}: for images in rows give shape=(H, W) or (H, W, C)")
        if len(self.shape) not in (2, 3) or int(np.prod(self.shape)) != rows.shape[1]:
            raise InputError(f"shape {tuple(self.shape)} does not fit X with {rows.shape[1]} features")
        return rows.reshape(-1, *self.shape)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # uint8 in, float32 out
        return tags


def _are_paths(X: Any) -> bool:
    if getattr(X, "ndim", 1) != 1 or not hasattr(X, "__iter__"):
        return False
    return any(isinstance(value, str | os.PathLike) for value in X)  # None or NaN may come before the first


def _labels(y: Any, samples: int) -> Labels:
    from selfsup.data.label_values import read_labels

    if y is None:
        raise InputError("this task needs labels: give y, with -1 for samples that have none")
    if len(y) != samples:
        raise InputError(f"{len(y)} labels y for {samples} images X")
    try:
        return read_labels(y)
    except UserError as error:
        raise InputError(str(error)) from None

"""Every image model of timm as an encoder, with a stem that suits small images."""

from __future__ import annotations

import inspect
from typing import Any

import timm
import torch
from timm.layers import PatchEmbed, apply_keep_indices_nlc
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from selfsup.base.notes import say
from selfsup.errors import UserError
from selfsup.nn.image.transformer import sines, start_linear
from selfsup.spec import ImageSpec

SMALL = 64  # pixels: images up to this size get the small stem
LARGE, PATCH = 160, 16  # pixels: from this size on `small_vit` has patches of at most so many
VITS = {"vit": (128, 6, 4), "vit-mini": (64, 2, 2)}  # width, blocks, heads


def small_vit(name: str, spec: ImageSpec) -> TimmModel:
    """Return a plain vision transformer for small data, without a class token: it averages the patch tokens.

    Patches are the largest that split the image into at least 7 × 7, and from 160 pixels on of at most 16 × 16, as in
    the papers: larger ones would have more values than the width can carry. The position embedding is learned but
    starts as sines and cosines, so that a short training does not have to discover them. The last LayerNorm applies to
    each token. Linear layers start as in MAE (He et al., 2022, appendix A.1: Xavier uniform): timm's standard deviation
    of 0.02 suits widths of 768; at 64 and 128 the blocks would contribute almost nothing.
    """
    patch = _vit_patch(spec.size)
    if not patch:
        near = filter(_vit_patch, range(8, 2 * spec.size))
        fits = min(near, key=lambda size: abs(size - spec.size))
        raise UserError(f"{name} cannot split {spec.size} × {spec.size} pixels into patches: give --size {fits}")
    width, depth, heads = VITS[name]
    model = TimmModel(
        "vit_tiny_patch16_224", spec, embed_dim=width, depth=depth, num_heads=heads, patch_size=patch,
        class_token=False, global_pool="avg", fc_norm=False,
    )  # fmt: skip
    start_linear(model)
    nn.init.xavier_uniform_(model.model.patch_embed.proj.weight.flatten(1))
    with torch.no_grad():
        model.model.pos_embed.copy_(sines(model.grid, width))
    return model


class TimmModel(nn.Module):
    """A timm model without its classifier: `forward` (B, C, H, W) -> (B, dim), pooled as timm pools it.

    Convolutional models have `maps` (B, C, H, W), transformers `tokens` (B, N, dim) with the prefix tokens first; both
    have patch features (`selfsup.nn.image.dense`). With
    timm's VisionTransformer and Eva (which DINOv3's models are), tokens can be dropped or masked: `patch` (pixels per
    side), `grid` (patches per side), `prefix` (tokens that are not patches) and `depth` (blocks) describe it; for other
    models they are 0. It also takes images of other sizes made of whole patches: positions are interpolated.

    Images of at most 64 pixels get a stem that keeps their detail (`stem` = "small"): the first strided convolution
    becomes 3×3 with stride 1, and the max-pooling after it is removed (Chen et al., 2020, appendix B.9); transformers
    use at least 7 × 7 patches. Models whose stem cannot be changed in this way keep their own (`stem` = "standard").
    `weights` replace timm's pretrained ones, which it would download; these and `keep_stem` leave the stem as it is.
    `more` are options of the model; a `patch_size` among them keeps the stem as given.

    `made_by` are the name and the options with which timm makes the same model, except for the layers `replaced`: their
    names, with the code that makes each.
    """

    def __init__(
        self,
        name: str,
        spec: ImageSpec,
        pretrained: bool = False,
        weights: dict[str, Tensor] | None = None,
        keep_stem: bool = False,
        **more: Any,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.replaced: dict[str, str] = {}
        fits = False
        try:
            with torch.device("meta"):
                takes = _options_of(type(timm.create_model(name)))
            options: dict[str, Any] = {"num_classes": 0, "in_chans": spec.channels} | more
            if "img_size" in takes:
                options["img_size"] = spec.size
            if "dynamic_img_size" in takes:
                options["dynamic_img_size"] = True
            source = {} if weights is None else {"pretrained_cfg_overlay": {"state_dict": dict(weights)}}
            pretrained = pretrained or weights is not None
            self.model, self.stem = timm.create_model(name, pretrained=pretrained, **options, **source), "standard"
            self.made_by = (name, options)
            if weights is not None:
                _check_loaded(self.model, weights, name)
                fits = True
            if spec.size <= SMALL and not (pretrained or keep_stem or "patch_size" in more):
                self._shrink_stem(takes)
            self.dim, shape = _measure(self.model, spec)
        except (RuntimeError, ValueError, AssertionError, TypeError, OSError, ZeroDivisionError) as error:
            lines = str(error).splitlines() or [type(error).__name__]
            reason = lines[lines[0].endswith(":") and len(lines) > 1].strip()  # torch's first line is a heading
            if weights is not None and not fits:
                raise UserError(
                    f"these weights do not fit {name}: {reason[:200].rstrip('.')}; name the model that they are of"
                ) from error
            if pretrained and isinstance(error, OSError):
                raise UserError(
                    f"cannot get the pretrained weights of {name}: download them elsewhere and give that file "
                    f"({reason})"
                ) from error
            raise UserError(
                f"{name} cannot take {spec.size} × {spec.size} images: give another --size or --encoder ({reason})"
            ) from error
        self.has_tokens, self.has_maps = len(shape) == 3, len(shape) == 4
        self.patch = self.grid = self.prefix = self.depth = 0
        plain = type(self.model) in (VisionTransformer, Eva) and type(self.model.patch_embed) is PatchEmbed  # no hybrid
        if plain and isinstance(self.model.patch_drop, nn.Identity | None):
            self.patch, self.grid = self.model.patch_embed.patch_size[0], self.model.patch_embed.grid_size[0]
            self.prefix, self.depth = self.model.num_prefix_tokens, len(self.model.blocks)
        self.has_patches = self.has_tokens and hasattr(self.model, "forward_intermediates")
        self._channels_last = self.has_maps and getattr(self.model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim)."""
        return self.model(x)

    def maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, dim, H', W'); raises `UserError` unless the model is convolutional."""
        if not self.has_maps:
            raise UserError("this encoder has no feature maps: use a convolutional one, for example resnet18")
        features: Tensor = self.model.forward_features(x)
        return features.permute(0, 3, 1, 2) if self._channels_last else features

    def patch_maps(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D, h, w): a transformer's patch tokens in their grid; see `nn.image.dense`."""
        if self.patch:
            rows, columns = (side // self.patch for side in x.shape[2:])
            return self.tokens(x)[:, self.prefix :].transpose(1, 2).unflatten(2, (rows, columns))
        model: Any = self.model
        try:
            found = model.forward_intermediates(x, 1, norm=True, output_fmt="NCHW", intermediates_only=True)
        except AssertionError as error:
            raise UserError(f"timm does not tell the patch features of {self.made_by[0]}: {error}") from None
        return found[-1]

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> the map of each stage; of a transformer the patches after each quarter of its blocks.

        Those of a transformer are normalized as the last ones are. Raises `UserError` where timm tells none.
        """
        model: Any = self.model
        quarters = sorted({-(-self.depth * part // 4) - 1 for part in range(1, 5)}) if self.depth else None
        more = {"norm": True} if self.has_tokens else {}
        if not hasattr(model, "forward_intermediates"):
            raise UserError(
                f"timm does not tell the stages of {self.made_by[0]}: use another encoder, such as resnet18"
            )
        return model.forward_intermediates(x, quarters, output_fmt="NCHW", intermediates_only=True, **more)

    def with_maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> the representation (B, dim), and the map of the stage before the last one (B, C', H', W').

        Raises `UserError` unless the model is convolutional.
        """
        if not (self.has_maps and hasattr(self.model, "forward_intermediates")):
            raise UserError("this encoder has no feature maps: use a convolutional one, for example resnet18")
        model: Any = self.model
        last, maps = model.forward_intermediates(x, indices=2, output_fmt="NCHW")
        return model.forward_head(last), maps[0]

    def tokens(
        self, x: Tensor, keep: Tensor | None = None, mask: Tensor | None = None, mask_token: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W) -> (B, prefix + N, dim), after the last LayerNorm; raises `UserError` unless a transformer.

        `mask` (B, N) bool: the embeddings of these patches are replaced by `mask_token` (1, dim) before positions are
        added. `keep` (B, K) int64: only these patches enter the blocks, in this order.
        """
        if not self.has_tokens:
            raise UserError("this encoder has no tokens: use a transformer, for example vit")
        if keep is None and mask is None:
            return self.model.forward_features(x)
        model: Any = self.model
        h = model.patch_embed(x)
        if mask is not None:
            assert mask_token is not None, "a mask needs a mask token"
            h = torch.where(mask.view(*h.shape[:-1], 1), mask_token.to(h.dtype), h)
        rotation: Any = None
        h = model._pos_embed(h)
        if isinstance(model, Eva):
            h, rotation = h
        if keep is not None:
            patches = h[:, self.prefix :].gather(1, keep[..., None].expand(-1, -1, h.shape[2]))
            h = torch.cat([h[:, : self.prefix], patches], 1)
        if not isinstance(model, Eva):
            return model.norm(model.blocks(model.norm_pre(h)))
        mixed = model.rope_mixed and rotation is not None  # a rotation for each block
        if keep is not None and rotation is not None:
            rotation = apply_keep_indices_nlc(h, rotation, keep)
            rotation = rotation.transpose(0, 1) if mixed else rotation[:, None]  # the same for each head
        h = model.norm_pre(h)
        for number, block in enumerate(model.blocks):
            h = block(h, rope=rotation[number] if mixed else rotation)
        return model.norm(h)

    def pool(self, tokens: Tensor) -> Tensor:
        """(B, N, dim) -> (B, dim): pool tokens as `forward` does."""
        return self.model.forward_head(tokens)

    def mlp_outputs(self, x: Tensor, last: int) -> list[Tensor]:
        """Return what the MLPs of the `last` blocks add to the patch tokens: `last` times (B, N, dim).

        Raises `UserError` for blocks of another kind.
        """
        found: list[Tensor] = []
        blocks: Any = self.model.blocks[-last:]
        if not all(hasattr(block, "mlp") for block in blocks):
            raise UserError(f"the blocks of {self.made_by[0]} have no MLP of their own: use another transformer")
        hooks = [block.mlp.register_forward_hook(lambda _, inputs, output: found.append(output)) for block in blocks]
        try:
            self.model.forward_features(x)
        finally:
            for hook in hooks:
                hook.remove()
        return [output[:, self.prefix :] for output in found]

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what should be said once when training begins: that the small stem is used, and its cost."""
        if self.stem == "standard":
            return ()
        (name, options), spec = self.made_by, self.spec
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                own = timm.create_model(name, **{k: v for k, v in options.items() if k != "patch_size"})
            times = _operations(self.model, spec) / _operations(own, spec)
        except (RuntimeError, NotImplementedError, AssertionError, ValueError, ZeroDivisionError):
            return ()  # a model that computes with its weights while it is built
        if times < 1.2:
            return ()
        patch = options.get("patch_size")
        what = f"patches of {patch} × {patch} pixels" if patch else "stride 1 in its first convolution"
        return (
            f"{name} takes {spec.size} × {spec.size} images with the stem for small ones ({what}): {times:.1f} times "
            f"the operations of its own stem, as many as at {round(spec.size * times**0.5)} pixels. From --size "
            f"{SMALL + 1} on it keeps its own",
        )

    def _shrink_stem(self, takes: Any) -> None:
        standard, (name, options), spec = self.model, self.made_by, self.spec
        try:
            if "patch_size" in takes:
                patch = _small_patch(spec.size) if "img_size" in takes else max(spec.size // 32, 1)
                options = options | {"patch_size": patch}
                self.model = timm.create_model(name, **options)
            else:
                self.model = timm.create_model(name, **options)
                self.replaced = _unstride(self.model)
            _measure(self.model, spec)
            self.stem, self.made_by = "small", (name, options)
        except (RuntimeError, ValueError, AssertionError, TypeError):
            self.model, self.replaced = standard, {}


def _check_loaded(model: nn.Module, weights: dict[str, Tensor], name: str) -> None:
    """Raise `ValueError` unless most parameters hold a given tensor: timm loads what fits. Say what is left.

    The names may differ: timm translates those of other programs, and adapts positions to another size. Ones and zeros,
    as an untrained normalization has, tell nothing.
    """
    there = {(tensor.shape, float(tensor.float().sum())) for tensor in weights.values()}
    own = [(key, p.detach()) for key, p in model.named_parameters() if p.amin() < p.amax()]
    missing = [(key, p) for key, p in own if (p.shape, float(p.sum())) not in there]
    if 2 * len(missing) > len(own):
        raise ValueError(f"they lack {len(missing)} of {len(own)} parameters, for example {missing[0][0]!r}")
    fitted = [(key, p) for key, p in missing if key in weights and weights[key].shape != p.shape]
    for key, p in fitted:
        say(f"{key} of {name} is fitted from {_sides(weights[key])} to {_sides(p)}: images of another size or channels")
    if others := [key for key, _ in missing if key not in dict(fitted)]:
        say(
            f"{len(others)} of {len(own)} parameters of {name} are not among the weights as they are: {others[0]} …; "
            "what the file lacks begins untrained"
        )


def _sides(tensor: Tensor) -> str:
    return " × ".join(map(str, tensor.shape))


def _options_of(model: type) -> set[str]:
    """Return the names of the constructor's parameters, with those that it passes on to the base classes."""
    names: set[str] = set()
    for one in (one for one in model.__mro__ if "__init__" in vars(one)):
        parameters = inspect.signature(vars(one)["__init__"]).parameters
        names |= parameters.keys()
        if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return names


def _vit_patch(size: int) -> int:
    """Return the side of the patches of `small_vit`; 0 where no patch divides the image into few enough."""
    most = PATCH if size >= LARGE else size
    patch = max(patch for patch in range(1, min(size // 7, most) + 1) if size % patch == 0)
    return patch if size // patch <= max(16, size // PATCH) else 0


def _small_patch(size: int) -> int:
    return max(patch for patch in range(1, size // 7 + 1) if size % patch == 0)


def _unstride(model: nn.Module) -> dict[str, str]:
    """Replace the first strided convolution by a 3×3 one with stride 1, and drop the max-pooling right after it.

    Return the names of the new layers, with the code that makes them.
    """
    strided = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and max(m.stride) > 1]
    if not strided:
        return {}
    made: dict[str, str] = {}
    names = [name for name, _ in model.named_modules()]
    until = names.index(strided[1]) if len(strided) > 1 else len(names)
    old = model.get_submodule(strided[0])
    assert isinstance(old, nn.Conv2d)
    groups, bias = old.groups, old.bias is not None
    more = (f", groups={groups}" if groups > 1 else "") + ("" if bias else ", bias=False")
    made[strided[0]] = f"torch.nn.Conv2d({old.in_channels}, {old.out_channels}, 3, padding=1{more})"
    for name in names[names.index(strided[0]) : until]:
        if isinstance(model.get_submodule(name), nn.MaxPool2d):
            _replace(model, name, nn.Identity())
            made[name] = "torch.nn.Identity()"
            break
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, groups=groups, bias=bias)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    _replace(model, strided[0], new)
    return made


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def _operations(model: nn.Module, spec: ImageSpec) -> int:
    """Return the multiplications and additions for one image."""
    device, training = next(model.parameters()).device, model.training
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(1, spec.channels, spec.size, spec.size, device=device))
    model.train(training)
    return counter.get_total_flops()


@torch.no_grad()
def _measure(model: Any, spec: ImageSpec) -> tuple[int, torch.Size]:
    """Return the width of the pooled output and the shape of the features before pooling."""
    model.eval()
    x = torch.zeros(2, spec.channels, spec.size, spec.size)
    pooled, features = model(x), model.forward_features(x)
    model.train()
    if pooled.ndim != 2:
        raise ValueError(f"its output has the shape {tuple(pooled.shape)}")
    return int(pooled.shape[1]), features.shape

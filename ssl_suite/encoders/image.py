"""ImageEncoder: any timm backbone behind the suite's contract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoded, Encoder, Tokens
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.load import add_scheme

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class ImageEncoder(Encoder):
    """A backbone by its timm name.

    A vision transformer's tokens are patches, its states those after each block, and any of its patches may be left
    out. Every other backbone's tokens are pixels, its states those after each stage, on the grid of the last.

    Args:
        name: of the backbone, as in `timm.list_models()`; with a tag (`resnet50.tv_in1k`), of certain weights.
        small_images: for ResNets on images of about 32 pixels: first convolution 3×3 stride 1, no max-pooling
            (SimCLR, arXiv:2002.05709, appendix B.9).
        width: of a ResNet's first stage, for a CPU: 64 is the published one.
        pretrained: timm's weights, fetched from its hub.
        image_size: side that a vision transformer is built for; None for its own.
        patch_size: side of a vision transformer's patches, instead of its name's: 4 for images of 32 pixels.
        drop_path: stochastic depth.
        mean: of each colour, subtracted from images in [0, 1]; None for that of the weights.
        std: what each colour is divided by then; None for that of the weights.
    """

    modality = "image"
    net: Any
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str = "resnet18",
        small_images: bool = False,
        width: int = 64,
        pretrained: bool = False,
        image_size: int | None = None,
        patch_size: int | None = None,
        drop_path: float = 0.0,
        mean: list[float] | None = None,
        std: list[float] | None = None,
    ) -> None:
        super().__init__()
        within("width", width, low=1, whole=True)
        within("drop_path", drop_path, low=0, below=1)
        options: dict[str, Any] = {}
        if image_size is not None:
            within("image_size", image_size, low=1, whole=True)
            options["img_size"] = image_size
        if patch_size is not None:
            within("patch_size", patch_size, low=1, whole=True)
            options["patch_size"] = patch_size
        if name.startswith("resnet"):
            options["zero_init_last"] = False  # as torchvision; zeroed branches would make random weights a straw man
        if width != 64:
            if not name.startswith("resnet"):
                raise UserError(f"width is for ResNets; {name!r} has its own.")
            options |= {"channels": [width * 2**i for i in range(4)]}
        self.net = create(name, pretrained, drop_path, options)
        if small_images:
            small_stem(self.net, name)
        known = self.net.pretrained_cfg
        for key, given in (("mean", mean), ("std", std)):
            values = list(given if given is not None else known.get(key) or IMAGENET[key])
            if len(values) != 3 or (key == "std" and min(values) <= 0):
                raise UserError(
                    f"{key} is {values}, but must be three numbers, one a colour{', above 0' * (key == 'std')}."
                )
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1), persistent=False)
            self.config[key] = values
        self.memory_format = fastest_format(self.net)
        self.channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        self.dim = getattr(self.net, "head_hidden_size", None) or self.net.num_features
        self.is_transformer = isinstance(self.net, vision_transformer())
        self.class_token = getattr(self.net, "cls_token", None) is not None
        self.stages = [] if self.is_transformer else stages_of(self.net)
        self.num_states = len(self.net.blocks) + 1 if self.is_transformer else len(self.stages) + 1
        self.stride = stride_of(self.net) // (4 if small_images else 1)  # a stem that halves twice is replaced
        self.config["pretrained"], self.trained = False, pretrained  # a folder brings its own weights
        if pretrained or image_size is not None:
            self.preprocess["image_size"] = image_size or known["input_size"][-1]

    @property
    def widths(self) -> tuple[int, ...]:
        return (*self.stages, self.dim) if self.stages else super().widths

    def forward(self, batch: ImageBatch) -> Encoded:
        if torch.compiler.is_compiling():
            return super().forward(batch)
        try:
            return super().forward(batch)
        except (AssertionError, RuntimeError, ValueError) as error:
            if why := self._refusal(batch.images, error):
                raise UserError(why) from error
            raise

    def embed(self, batch: ImageBatch) -> Tokens:
        images = ((batch.images - self.mean) / self.std).contiguous(memory_format=self.memory_format)
        if not self.is_transformer:
            return pixel_tokens(images)
        x = self.net.patch_embed(images)  # (B, H, W, D), or (B, T, D) where the size is fixed
        grid = x.shape[1:3] if x.ndim == 4 else self.net.patch_embed.grid_size
        patches = x.flatten(1, -2)
        x, apart = self.net._pos_embed(x), self.net.num_prefix_tokens
        values, prefix = x[:, apart:], x[:, :apart] if apart else None
        mask = x.new_ones(values.shape[:2], dtype=torch.bool)
        return Tokens(values, mask, prefix, grid=tuple(grid), dense=True, positions=(values - patches).detach())

    def contextualise(self, tokens: Tokens) -> Encoded:
        if not self.is_transformer:
            return self._through_stages(tokens.whole(self.config["name"]))
        if not tokens.dense:
            raise UserError(f"{self.config['name']} reads equally many patches of each image; leave out as many.")
        x = tokens.values if tokens.prefix is None else torch.cat([tokens.prefix, tokens.values], 1)
        states, apart = [self.net.norm_pre(x)], self.net.num_prefix_tokens
        for block in self.net.blocks:
            states.append(block(states[-1]))
        states[-1] = self.net.norm(states[-1])
        prefix = states[-1][:, :apart] if apart else None
        pooled = self.net.forward_head(states[-1])
        return Encoded([state[:, apart:] for state in states], tokens.mask, pooled, prefix=prefix)

    def _through_stages(self, tokens: Tokens) -> Encoded:
        images, maps = pixels_of(tokens), []
        if self.stages:
            x, maps = self.net.forward_intermediates(images, output_fmt="NCHW")
        else:
            x = self.net.forward_features(images)
        pooled = self.net.forward_head(x)
        output, grid, prefix = self._positions(x, pooled, tuple(maps[-1].shape[2:]) if maps else None)
        mask = torch.ones(output.shape[:2], dtype=torch.bool, device=pooled.device)
        return Encoded(Stages(maps[: len(self.stages)], output, grid), mask, pooled, prefix=prefix)

    def _positions(
        self, x: Any, pooled: Tensor, grid: tuple[int, ...] | None
    ) -> tuple[Tensor, tuple[int, ...] | None, Tensor | None]:
        """What timm calls features → (B, T, D), their grid, and what stands before them.

        One position, the pooled vector, where they are of several streams or the head gives them another width.
        """
        if isinstance(x, Tensor) and x.ndim == 4:
            last = self.channels_last or (x.shape[1] != self.net.num_features == x.shape[-1])
            grid = tuple(x.shape[1:3] if last else x.shape[2:4])
            x = x.flatten(1, 2) if last else x.flatten(2).transpose(1, 2)
        fits = isinstance(x, Tensor) and x.ndim == 3 and x.shape[2] == self.dim
        if not fits or (grid and x.shape[1] < math.prod(grid)):
            return pooled[:, None], (1, 1), None
        apart = x.shape[1] - math.prod(grid) if grid else getattr(self.net, "num_prefix_tokens", 0)
        return x[:, apart:], grid, x[:, :apart] if apart else None

    def _refusal(self, images: Tensor, error: Exception) -> str | None:
        """What a user did that timm or torch has no sentence for."""
        (height, width), own = images.shape[2:], self.config["image_size"] or self.net.pretrained_cfg["input_size"][-1]
        if "more than 1 value per channel" in str(error):
            return (
                f"With one image a step {self.config['name']} cannot learn: its batch norm needs two; raise batch_size."
            )
        if isinstance(error, torch.OutOfMemoryError) or (height, width) == (own, own):
            return None
        return (
            f"{self.config['name']}, built for images of {own} pixels, cannot take {height} × {width} ({error}); set "
            f"--data.image_size {own}, or --model.encoder.image_size for a new encoder of another size."
        )

    def blocks(self) -> list[nn.Module]:
        return list(self.net.blocks) if self.is_transformer else []

    def feed_forwards(self) -> list[nn.Module]:
        return [block.mlp for block in self.blocks()]  # type: ignore[misc]

    def layers(self) -> list[list[nn.Parameter]]:
        """Stages of a ResNet, blocks of a transformer, by timm's own grouping; one layer where it has none."""
        if not hasattr(self.net, "group_matcher"):
            return super().layers()
        matcher = self.net.group_matcher(coarse=False)
        from timm.models import group_parameters

        groups = group_parameters(self.net, matcher, reverse=False)
        named = dict(self.net.named_parameters())
        order = sorted(groups, key=lambda k: (not isinstance(k, (int, float)), k if isinstance(k, (int, float)) else 0))
        return [[named[n] for n in groups[k] if n in named] for k in order]


class Stages(Sequence[Tensor]):
    """States of a network of stages, averaged down to the grid of the last, each when it is asked for.

    Args:
        maps: (B, C, H, W) of the stages before the output.
        output: (B, T, D).
        grid: rows and columns of the output; None where there are no maps.
    """

    def __init__(self, maps: list[Tensor], output: Tensor, grid: tuple[int, ...] | None) -> None:
        self.maps, self.output, self.grid = maps, output, grid

    def __len__(self) -> int:
        return len(self.maps) + 1

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...

    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        if index == len(self.maps):
            return self.output
        assert self.grid is not None
        rows, columns = self.grid
        return F.adaptive_avg_pool2d(self.maps[index], (rows, columns)).flatten(2).transpose(1, 2)


def pixel_tokens(images: Tensor) -> Tokens:
    """(B, 3, H, W) → a token a pixel, without a copy where colours lie last."""
    b, _, height, width = images.shape
    mask = torch.ones(b, height * width, dtype=torch.bool, device=images.device)
    return Tokens(images.flatten(2).transpose(1, 2), mask, grid=(height, width), dense=True)


def pixels_of(tokens: Tokens) -> Tensor:
    """(B, 3, H, W) again."""
    assert tokens.grid is not None
    return tokens.values.transpose(1, 2).unflatten(2, tokens.grid)


def vision_transformer() -> type[nn.Module]:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer


def create(name: str, pretrained: bool, drop_path: float, options: dict[str, Any]) -> Any:
    """Makes a timm model without classifier, any size of image allowed where it can be.

    Args:
        name: with or without a tag.
        pretrained: fetch its weights.
        drop_path: stochastic depth; models without it are asked for none.
        options: that the user chose, each of which the model must take.

    Raises:
        UserError: there is no such model, tag or option, or the weights cannot be had.
    """
    import timm

    architecture, dot, _ = name.partition(".")
    if architecture not in timm.list_models():
        raise UserError(f"timm has no model {name!r}.{nearest(architecture, timm.list_models(name[:3] + '*'))}")
    if dot and name not in (tagged := timm.list_pretrained(f"{architecture}.*")):
        raise UserError(f"timm has no weights {name!r}.{nearest(name, tagged)}")
    offered = {"drop_path_rate": drop_path, "dynamic_img_size": True} | options
    while True:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **offered)
        except TypeError as error:
            refused = next((o for o in offered if f"'{o}'" in str(error)), None)
            if refused is None:
                raise
            if refused in options or (refused == "drop_path_rate" and drop_path):
                ours = {"img_size": "image_size", "drop_path_rate": "drop_path"}.get(refused, refused)
                raise UserError(f"{name!r} takes no {ours}; leave it out.") from None
            del offered[refused]
        except Exception as error:  # of the hub: no such weights, no network, a dozen classes
            if not pretrained:
                raise
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"The weights of timm:{name} cannot be had ({why}).") from None


def stride_of(net: Any) -> int:
    """Pixels a state, along a side, of a timm model."""
    return int(net.feature_info[-1]["reduction"]) if getattr(net, "feature_info", None) else 32


def stages_of(net: Any) -> list[int]:
    """Channels of the stages before the output, of a timm model that gives them without waiting for the device."""
    if not hasattr(net, "forward_intermediates") or type(net).__name__ == "Gemma4VitClassifier":
        return []
    return [int(stage["num_chs"]) for stage in net.feature_info][:-1]


def fastest_format(net: nn.Module) -> torch.memory_format:
    """Channels last, for the faster convolutions, but where oneDNN fails at it.

    Its strided 1 × 1 convolutions of fewer than 8 channels write outside their memory on CPUs with AVX2 (torch 2.14).
    """
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    broken = any(m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels % 8 for m in convolutions)
    return torch.contiguous_format if broken else torch.channels_last


def small_stem(net: Any, name: str) -> None:
    """Replaces a ResNet's 7×7 stride-2 convolution and max-pooling by a 3×3 stride-1 convolution."""
    if not hasattr(net, "conv1") or not hasattr(net, "maxpool"):
        raise UserError(f"small_images changes a ResNet's stem; {name!r} has none.")
    net.conv1 = nn.Conv2d(3, net.conv1.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    net.maxpool = nn.Identity()


add_scheme("timm", lambda name: ImageEncoder(name, pretrained=True))

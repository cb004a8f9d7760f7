"""ImageEncoder: any timm backbone behind the suite's contract."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.check import within
from ssl_suite.core.encoder import Encoded, Encoder
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.folder import schemes

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class ImageEncoder(Encoder):
    """A backbone by its timm name.

    Args:
        name: of the backbone, as in `timm.list_models()`; with a tag (`resnet50.tv_in1k`), of certain weights.
        small_images: for ResNets on images of about 32 pixels: first convolution 3×3 stride 1, no max-pooling
            (SimCLR, arXiv:2002.05709, appendix B.9).
        width: of a ResNet's first stage, for a CPU: 64 is the published one.
        pretrained: timm's weights, fetched from its hub.
        image_size: side that a vision transformer is built for; None for its own.
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
        self.dim, self.num_states = getattr(self.net, "head_hidden_size", None) or self.net.num_features, 1
        self.stride = 1 if small_images else stride_of(self.net)
        self.config["pretrained"] = False  # a folder brings its own weights
        if pretrained or image_size is not None:
            self.preprocess["image_size"] = image_size or known["input_size"][-1]

    def forward(self, batch: ImageBatch) -> Encoded:
        if torch.compiler.is_compiling():
            return self._encode(batch.images)
        try:
            return self._encode(batch.images)
        except (AssertionError, RuntimeError, ValueError) as error:
            if why := self._refusal(batch.images, error):
                raise UserError(why) from error
            raise

    def _encode(self, images: Tensor) -> Encoded:
        images = (images - self.mean) / self.std
        x = self.net.forward_features(images.contiguous(memory_format=self.memory_format))
        pooled = self.net.forward_head(x)
        states = self._positions(x, pooled)
        return Encoded((states,), torch.ones(states.shape[:2], dtype=torch.bool, device=pooled.device), pooled)

    def _positions(self, x: Any, pooled: Tensor) -> Tensor:
        """What timm calls features → (B, T, D).

        One position, the pooled vector, where they are of several streams or the head gives them another width.
        """
        if isinstance(x, Tensor) and x.ndim == 4:
            last = self.channels_last or (x.shape[1] != self.net.num_features == x.shape[-1])
            x = x.flatten(1, 2) if last else x.flatten(2).transpose(1, 2)
        fits = isinstance(x, Tensor) and x.ndim == 3 and x.shape[2] == self.dim
        return x if fits else pooled[:, None]

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
    stages = getattr(net, "feature_info", None)
    return int(stages[-1]["reduction"]) if stages else 32


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


schemes["timm"] = lambda name: ImageEncoder(name, pretrained=True)

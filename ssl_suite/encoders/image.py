"""ImageEncoder: any timm backbone behind the suite's contract."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ssl_suite.core.batch import ImageBatch
from ssl_suite.core.encoder import Encoded, Encoder
from ssl_suite.core.errors import UserError, nearest
from ssl_suite.core.folder import schemes

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageEncoder(Encoder):
    """A backbone by its timm name.

    Args:
        name: of the backbone, as in `timm.list_models()`.
        small_images: for ResNets on images of about 32 pixels: first convolution 3×3 stride 1, no max-pooling
            (SimCLR, arXiv:2002.05709, appendix B.9).
        width: of a ResNet's first stage, for a CPU: 64 is the published one.
        pretrained: timm's weights, fetched from its hub.
        image_size: side that a vision transformer is built for; None for its own.
        drop_path: stochastic depth.
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
    ) -> None:
        import timm

        super().__init__()
        if name not in timm.list_models():
            raise UserError(f"timm has no model {name!r}.{nearest(name, timm.list_models(name[:3] + '*'))}")
        options: dict[str, Any] = {"img_size": image_size} if image_size else {}
        if name.startswith("resnet"):
            options["zero_init_last"] = False  # as torchvision; zeroed branches would make random weights a straw man
        if width != 64:
            if not name.startswith("resnet"):
                raise UserError(f"width is for ResNets; {name!r} has its own.")
            options |= {"channels": [width * 2**i for i in range(4)]}
        self.net = timm.create_model(name, pretrained=pretrained, num_classes=0, drop_path_rate=drop_path, **options)
        if small_images:
            small_stem(self.net, name)
        config = self.net.pretrained_cfg
        self.register_buffer("mean", torch.tensor(config.get("mean", IMAGENET[0])).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.get("std", IMAGENET[1])).view(3, 1, 1), persistent=False)
        self.memory_format = fastest_format(self.net)
        self.dim, self.num_states = self.net.num_features, 1
        self.stride = 1 if small_images else 32
        self.config["pretrained"] = False  # a folder brings its own weights

    def forward(self, batch: ImageBatch) -> Encoded:
        images = (batch.images - self.mean) / self.std
        x = self.net.forward_features(images.contiguous(memory_format=self.memory_format))
        pooled = self.net.forward_head(x)
        states = x.flatten(2).transpose(1, 2) if x.ndim == 4 else x  # (B, D, h, w) or already (B, T, D)
        return Encoded((states,), torch.ones(states.shape[:2], dtype=torch.bool, device=x.device), pooled)

    def layers(self) -> list[list[nn.Parameter]]:
        """Stages of a ResNet, blocks of a transformer, by timm's own grouping."""
        matcher = self.net.group_matcher(coarse=False)
        from timm.models import group_parameters

        groups = group_parameters(self.net, matcher, reverse=False)
        named = dict(self.net.named_parameters())
        order = sorted(groups, key=lambda k: (not isinstance(k, (int, float)), k if isinstance(k, (int, float)) else 0))
        return [[named[n] for n in groups[k] if n in named] for k in order]


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

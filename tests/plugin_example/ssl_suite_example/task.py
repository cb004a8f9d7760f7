"""A task that changes one thing of another."""

from torch import Tensor
from torch.nn import functional as F

from ssl_suite.tasks.classify import Classify


class SmoothClassify(Classify):
    """Cross-entropy with label smoothing."""

    def loss(self, output: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.float(), target, label_smoothing=0.1)

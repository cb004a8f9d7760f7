"""Signs of collapse: has the encoder stopped telling inputs apart?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

MOST = 1024
"""Features that are looked at: their singular values cost the cube of this, or of D where that is less."""


@torch.no_grad()
def collapse_signs(features: Tensor) -> dict[str, Tensor]:
    """Measures spread and rank of features; methods log it every `log_every_n_steps` steps, of the last batch.

    Args:
        features: (N, D).

    Returns:
        `feature_std`: mean standard deviation of the L2-normalised features times √D; 1 where they fill the sphere,
        0 where all are equal (SimSiam, arXiv:2011.10566, section 4.1).
        `effective_rank`: exp of the entropy of the normalised singular values of the centred features (RankMe,
        arXiv:2210.02885, which leaves their mean in), at most min(N, D). Both are NaN where a feature is not finite.
    """
    features = features.detach().float().flatten(1)[:MOST]
    if not bool(torch.isfinite(features).all()):  # no singular values
        return dict.fromkeys(("feature_std", "effective_rank"), features.new_tensor(torch.nan))
    std = normalize(features, dim=1).std(0).mean() * features.shape[1] ** 0.5
    singular = singular_values(features - features.mean(0))
    share = singular / singular.sum().clamp(min=1e-12)
    rank = torch.exp(-(share * (share + 1e-12).log()).sum())
    return {"feature_std": std, "effective_rank": rank.to(std)}


def singular_values(matrix: Tensor) -> Tensor:
    """Returns the min(N, D) singular values of (N, D), ascending, as roots of the smaller Gram matrix's eigenvalues.

    In double precision: in single, roots of rounding errors would pass for a tail of small values.
    """
    matrix = (matrix.cpu() if matrix.device.type == "mps" else matrix).double()  # Apple's GPUs have no doubles
    gram = matrix @ matrix.T if len(matrix) < matrix.shape[1] else matrix.T @ matrix
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()

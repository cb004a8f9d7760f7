"""Signs of collapse: has the encoder stopped telling inputs apart?"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


@torch.no_grad()
def collapse_signs(features: Tensor) -> dict[str, Tensor]:
    """Measures spread and rank of features.

    Args:
        features: (N, D).

    Returns:
        `feature_std`: mean standard deviation of the L2-normalised features times √D; 1 where they fill the sphere,
        0 where all are equal (SimSiam, arXiv:2011.10566, section 4.1).
        `effective_rank`: exp of the entropy of the normalised singular values (RankMe, arXiv:2210.02885), at most
        min(N, D). Both are NaN where a feature is not finite.
    """
    features = features.detach().float().flatten(1)[:1024]
    if not bool(torch.isfinite(features).all()):  # no singular values
        return dict.fromkeys(("feature_std", "effective_rank"), features.new_tensor(torch.nan))
    std = normalize(features, dim=1).std(0).mean() * features.shape[1] ** 0.5
    singular = torch.linalg.svdvals(features - features.mean(0))
    share = singular / singular.sum().clamp(min=1e-12)
    rank = torch.exp(-(share * (share + 1e-12).log()).sum())
    return {"feature_std": std, "effective_rank": rank}

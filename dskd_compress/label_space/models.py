"""A timm model with the classes of the data, behind timm's feature interface.

Shape suffixes: B images, C channels, J classes of the model, K classes of the data, M members of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class ClassMap(nn.Module):
    """Map logits onto coarser classes: the probabilities of the members of a class are added.

        z'_k = log sum_{j in S_k} exp z_j      so that      softmax(z')_k = p(S_k) / sum_l p(S_l)

    Classes in no S_k are dropped, so the output is the distribution over the mapped classes.

    Args:
        groups: S_k, indices of the model's classes for each class of the data; none is empty.

    Attributes:
        groups: as given.
        members: number of mapped classes of the model.
    """

    index_KM: Tensor
    penalty_KM: Tensor

    def __init__(self, groups: Sequence[Sequence[int]]) -> None:
        super().__init__()
        if not groups or not all(groups):
            raise ValueError("every class needs a member")
        width = max(len(group) for group in groups)
        padded = [[*group, *[group[0]] * (width - len(group))] for group in groups]
        penalty = [[0.0] * len(group) + [-torch.inf] * (width - len(group)) for group in groups]
        self.groups = [list(group) for group in groups]
        self.members = sum(map(len, groups))
        self.register_buffer("index_KM", torch.tensor(padded))
        self.register_buffer("penalty_KM", torch.tensor(penalty))

    def forward(self, logits_BJ: Tensor) -> Tensor:
        """Map logits BxJ to BxK, differentiably."""
        return (logits_BJ[:, self.index_KM] + self.penalty_KM.to(logits_BJ.dtype)).logsumexp(dim=2)


class _InDataClasses(nn.Module):
    """Base of both: the timm model without its classes."""

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # callers restore this mode, and with it the model's
        self.num_classes = num_classes
        self.pretrained_cfg = getattr(model, "pretrained_cfg", None)
        self.output_fmt = getattr(model, "output_fmt", "NCHW")

    def forward_features(self, images_BCHW: Tensor) -> Any:
        """Compute the features of the model."""
        return self.model.forward_features(images_BCHW)  # type: ignore[operator]

    def forward_intermediates(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the intermediate features of the model."""
        return self.model.forward_intermediates(*args, **kwargs)  # type: ignore[operator]

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """Compute logits BxK, or the vector BxC before the classifier, from the output of `forward_features`."""
        raise NotImplementedError

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Compute logits BxK from images."""
        return self.forward_head(self.forward_features(images_BCHW))


class ClassMappedModel(_InDataClasses):
    """A model whose classes are mapped onto those of the data."""

    def __init__(self, model: nn.Module, groups: Sequence[Sequence[int]]) -> None:
        super().__init__(model, len(groups))
        self.class_map = ClassMap(groups)

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """Compute logits BxK, or the vector BxC of the model, from the output of `forward_features`."""
        out: Tensor = self.model.forward_head(features, pre_logits=pre_logits)  # type: ignore[operator]
        return out if pre_logits else self.class_map(out)


class ProbedModel(_InDataClasses):
    """A model with another linear classifier on its pooled vector."""

    def __init__(self, model: nn.Module, classifier: nn.Linear) -> None:
        super().__init__(model, classifier.out_features)
        self.classifier = classifier

    def get_classifier(self) -> nn.Linear:
        """Get the linear layer, as timm's models do."""
        return self.classifier

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """Compute logits BxK, or the vector BxC of the model, from the output of `forward_features`."""
        vector_BC: Tensor = self.model.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return vector_BC if pre_logits else self.classifier(vector_BC)

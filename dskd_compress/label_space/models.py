"""A timm model that answers in the classes of the data, with timm's feature interface kept.

Shape suffixes: B images, C channels, J classes of the model, K classes of the data, M members of a class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class ClassMap(nn.Module):
    """Logits of one set of classes -> logits of a coarser one: the probabilities of members are added.

        z'_k = log sum_{j in S_k} exp z_j      so that      softmax(z')_k = p(S_k) / sum_l p(S_l)

    Classes in no S_k are dropped: what is left is the distribution given one of the mapped classes.

    Args:
        groups: S_k, indices of the model's classes for each class of the data; none is empty.

    Attributes:
        groups: as given.
        members: how many classes of the model are mapped.
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
        """BxJ -> BxK, differentiable."""
        return (logits_BJ[:, self.index_KM] + self.penalty_KM.to(logits_BJ.dtype)).logsumexp(dim=2)


class _InDataClasses(nn.Module):
    """What both have in common: everything of the timm model but its classes."""

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.training = model.training  # whoever looks at it puts this mode back, the model's as well
        self.num_classes = num_classes
        self.pretrained_cfg = getattr(model, "pretrained_cfg", None)
        self.output_fmt = getattr(model, "output_fmt", "NCHW")

    def forward_features(self, images_BCHW: Tensor) -> Any:
        """As the model."""
        return self.model.forward_features(images_BCHW)  # type: ignore[operator]

    def forward_intermediates(self, *args: Any, **kwargs: Any) -> Any:
        """As the model."""
        return self.model.forward_intermediates(*args, **kwargs)  # type: ignore[operator]

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """Output of `forward_features` -> logits BxK, or the vector BxC before the classifier."""
        raise NotImplementedError

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Images -> logits BxK."""
        return self.forward_head(self.forward_features(images_BCHW))


class ClassMappedModel(_InDataClasses):
    """A model whose classes are mapped onto those of the data."""

    def __init__(self, model: nn.Module, groups: Sequence[Sequence[int]]) -> None:
        super().__init__(model, len(groups))
        self.class_map = ClassMap(groups)

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """Output of `forward_features` -> logits BxK, or the model's own vector BxC."""
        out: Tensor = self.model.forward_head(features, pre_logits=pre_logits)  # type: ignore[operator]
        return out if pre_logits else self.class_map(out)


class ProbedModel(_InDataClasses):
    """A model whose pooled vector is read by another linear classifier than its own."""

    def __init__(self, model: nn.Module, classifier: nn.Linear) -> None:
        super().__init__(model, classifier.out_features)
        self.classifier = classifier

    def get_classifier(self) -> nn.Linear:
        """The linear layer, as timm's models give theirs."""
        return self.classifier

    def forward_head(self, features: Any, pre_logits: bool = False) -> Tensor:
        """Output of `forward_features` -> logits BxK, or the model's own vector BxC."""
        vector_BC: Tensor = self.model.forward_head(features, pre_logits=True)  # type: ignore[operator]
        return vector_BC if pre_logits else self.classifier(vector_BC)

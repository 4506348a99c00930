"""The networks of the CIFAR distillation literature, as timm models.

timm has none of them: its ResNets are for ImageNet, with a stem too coarse for a 32-px image. With these,
published tables can be reproduced: `timm.create_model("cifar_resnet8x4", num_classes=100)`.

    cifar_resnet8 14 20 32 56 110        He et al., arXiv 1512.03385, section 4.2
    cifar_resnet8x4 cifar_resnet32x4     four times as wide behind a stem of 32 channels (CRD, arXiv 1910.10699)
    cifar_wrn_16_2 40_1 40_2             Zagoruyko and Komodakis, arXiv 1605.07146
    cifar_vgg8 cifar_vgg13               VGG with batch norm and one linear layer (CRD)

`register()` is called where timm is imported; importing this package registers nothing.
"""

from __future__ import annotations


def register() -> None:
    """Register the networks for `timm.create_model`; repeated calls change nothing."""
    from timm.models import is_model, register_model

    from dskd_compress.cifar_nets import resnet, vgg, wide_resnet

    for entry in (*resnet.ENTRIES, *wide_resnet.ENTRIES, *vgg.ENTRIES):
        if not is_model(entry.__name__):
            register_model(entry)

from .base import (
    build as build,
    models as models,
)
from .conv4 import Conv4 as Conv4
from .linear import MLP as MLP
from .norm import (
    POLICIES as POLICIES,
    BatchStatNorm as BatchStatNorm,
    FixedStatNorm as FixedStatNorm,
    collecting_statistics as collecting_statistics,
    set_policy as set_policy,
    statistics_over_first as statistics_over_first,
)
from .resnet12 import ResNet12 as ResNet12
from .user import (
    prepare as prepare,
    probe as probe,
)
from .user.lora import (
    LOW_RANK as LOW_RANK,
    with_low_rank as with_low_rank,
)
from .vit import VisionTransformer as VisionTransformer

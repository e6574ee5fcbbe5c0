from .base import (
    build as build,
)
from .base import (
    models as models,
)
from .conv4 import Conv4 as Conv4
from .linear import MLP as MLP
from .norm import (
    POLICIES as POLICIES,
)
from .norm import (
    BatchStatNorm as BatchStatNorm,
)
from .norm import (
    FixedStatNorm as FixedStatNorm,
)
from .norm import (
    collecting_statistics as collecting_statistics,
)
from .norm import (
    set_policy as set_policy,
)
from .norm import (
    statistics_over_first as statistics_over_first,
)
from .resnet12 import ResNet12 as ResNet12
from .user import (
    prepare as prepare,
)
from .user import (
    probe as probe,
)
from .user.lora import (
    LOW_RANK as LOW_RANK,
)
from .user.lora import (
    with_low_rank as with_low_rank,
)
from .vit import VisionTransformer as VisionTransformer

from . import (
    seeding as seeding,
)
from . import (
    tree as tree,
)
from .objectives import (
    Objective as Objective,
)
from .objectives import (
    Term as Term,
)
from .registry import Registry as Registry
from .tree import ParameterTree as ParameterTree
from .types import (
    Episode as Episode,
)
from .types import (
    Estimate as Estimate,
)
from .types import (
    LossFunction as LossFunction,
)
from .types import (
    MetaGradient as MetaGradient,
)
from .types import (
    Params as Params,
)
from .types import (
    State as State,
)

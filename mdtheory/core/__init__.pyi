from . import (
    seeding as seeding,
    tree as tree,
)
from .estimate import Estimate as Estimate
from .objectives import (
    Objective as Objective,
    Term as Term,
)
from .registry import Registry as Registry
from .tree import ParameterTree as ParameterTree
from .types import (
    Episode as Episode,
    LossFunction as LossFunction,
    MetaGradient as MetaGradient,
    Params as Params,
    State as State,
)

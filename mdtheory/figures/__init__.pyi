from .contact_sheet import Card as Card
from .plots import (
    Paths as Paths,
)
from .plots import (
    adaptation_figure as adaptation_figure,
)
from .plots import (
    save_figure as save_figure,
)
from .plots import (
    training_figure as training_figure,
)

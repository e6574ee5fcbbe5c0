from .contact_sheet import Card as Card
from .plots import (
    Paths as Paths,
    adaptation_figure as adaptation_figure,
    save_figure as save_figure,
    training_figure as training_figure,
)

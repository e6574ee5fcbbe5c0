from .contact_sheet import Card as Card
from .plots import (
    Paths as Paths,
    adaptation_figure as adaptation_figure,
    comparison_figure as comparison_figure,
    save_figure as save_figure,
    steps_figure as steps_figure,
    training_figure as training_figure,
)

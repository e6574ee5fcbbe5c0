from .episodes import (
    EpisodeStream as EpisodeStream,
    Source as Source,
)
from .glyphs import GlyphSet as GlyphSet
from .images import ClassImages as ClassImages
from .open import (
    open_class_folders as open_class_folders,
    open_mini_imagenet as open_mini_imagenet,
)
from .sources import (
    DataSource as DataSource,
    data_sources as data_sources,
    open_source as open_source,
)
from .splits import Division as Division
from .synthetic import (
    LeastSquaresStream as LeastSquaresStream,
    SinusoidStream as SinusoidStream,
)
from .task_set import (
    GroupStream as GroupStream,
    TaskSet as TaskSet,
)

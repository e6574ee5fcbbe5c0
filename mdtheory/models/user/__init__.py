"""The door for anybody's own module: what makes it safe to differentiate through, or refuses it."""

from mdtheory.models.user.prepare import prepare
from mdtheory.models.user.probe import probe

__all__ = ["prepare", "probe"]

"""Block-triangular bijections: the poster's BlockIAF, its two forms, and the certified ones."""

from mdtheory.maps.iaf.base import BlockIAF
from mdtheory.maps.iaf.certified import CertifiedIAF
from mdtheory.maps.iaf.certified_forms import CertifiedKroneckerIAF, CertifiedMLPIAF
from mdtheory.maps.iaf.kronecker import KroneckerIAF
from mdtheory.maps.iaf.mlp import MLPIAF

__all__ = [
    "MLPIAF",
    "BlockIAF",
    "CertifiedIAF",
    "CertifiedKroneckerIAF",
    "CertifiedMLPIAF",
    "KroneckerIAF",
]

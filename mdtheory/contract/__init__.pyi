from . import strategies as strategies
from .check import Finding as Finding
from .estimator import EstimatorSetting as EstimatorSetting, check_estimator as check_estimator
from .geometry import check_geometry as check_geometry, examine as examine
from .map import MapSetting as MapSetting, check_map as check_map
from .network import NetworkSetting as NetworkSetting, check_network as check_network
from .reader import check_reader as check_reader
from .setting import (
    MODELS as MODELS,
    ContractViolation as ContractViolation,
    NotApplicable as NotApplicable,
    Setting as Setting,
)
from .source import check_source as check_source

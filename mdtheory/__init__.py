"""Meta-learning with learned loss geometries, and the referee that checks its theory."""

__version__ = "0.1.0"

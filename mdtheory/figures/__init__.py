"""Figures and contact sheets, with the same bytes every time."""

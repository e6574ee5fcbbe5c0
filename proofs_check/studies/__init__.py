"""Measurements beyond the ledger: they train maps and write pages of the documentation."""

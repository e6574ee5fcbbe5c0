"""The laboratory: frozen configurations in, records with provenance out, tables and figures made
from records.
"""

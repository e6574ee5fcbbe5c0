"""A pretrained encoder with little data: what a practitioner would do, and what meta-learning adds.

``python -m experiments.encoder --measure`` measures, which needs the extra ``encoder`` and Omniglot
(``MDTHEORY_OMNIGLOT``), and writes ``record/encoder.json``; the tables of
``docs/how-to/encoder.md`` are made from it.
"""

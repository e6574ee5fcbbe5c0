"""A pretrained encoder with little data: what a practitioner would do, and what meta-learning adds.

``python -m experiments.encoder --write`` measures and writes ``record.json``; the page
``experiments/results/encoder.md`` is made from it.
"""

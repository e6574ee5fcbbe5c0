"""One claim a file; the file's name starts with the claim's id in small letters. How: see
:mod:`proofs_check.claim`.
"""

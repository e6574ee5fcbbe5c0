"""How fast a meta-iteration is, beside the libraries that others use, and whether each one's
meta-gradient is right.
"""

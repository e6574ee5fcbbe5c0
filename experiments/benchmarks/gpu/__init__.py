"""Meta-iterations on a GPU: whether they are right, and what they cost beside others."""

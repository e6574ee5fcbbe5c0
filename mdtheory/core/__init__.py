"""What every other part stands on: types, trees of tensors, seeds, registries, objectives."""

"""Hydra finds its plugins in the package hydra_plugins: this one is the sweeper of the experiments."""

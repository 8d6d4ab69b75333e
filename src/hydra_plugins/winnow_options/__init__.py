"""Hydra finds its plugins in the package hydra_plugins: this one hides the shared bases among the options."""

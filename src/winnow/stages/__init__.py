"""The five stages, each a function of named parts."""

"""The jobs of a sweep, their scale, their end and their objective."""

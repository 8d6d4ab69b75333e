"""Selection rules beyond the plain budget. One file and one YAML each."""

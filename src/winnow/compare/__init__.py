"""Pages that compare runs: the dashboard and its W&B twin."""

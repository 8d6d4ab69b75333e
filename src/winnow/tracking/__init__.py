"""What a run leaves behind for people: run card, W&B and CSV tracking, report, defect detection."""

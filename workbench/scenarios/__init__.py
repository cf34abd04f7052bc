"""Scenarios: a tiny checkpoint, a planted defect and the finding it must give, one file each."""

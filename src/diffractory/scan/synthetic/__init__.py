"""Synthetic scans with known truth, and how peaks and maps score on them."""

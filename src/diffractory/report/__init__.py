"""Figures; every plot is a function of a result."""

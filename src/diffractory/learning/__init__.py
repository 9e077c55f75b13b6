"""Split by material, the hierarchy of forests, aggregation, evaluation, saved models."""

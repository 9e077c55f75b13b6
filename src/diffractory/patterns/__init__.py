"""Peak lists and what is computed from them; the same code serves training and inference."""

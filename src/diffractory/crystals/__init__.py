"""What to simulate: one crystal, a catalogue of crystals, their sources and their symmetry."""

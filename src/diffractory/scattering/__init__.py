"""The physics, pure arrays in and out: form factors, beams, orientations, Bloch-wave solvers."""

"""What a scan looks like before anything is computed from it: images, bad frames and bad pixels."""

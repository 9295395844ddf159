"""Texts to unit vectors: the encoder's contract, the encoders that come with this package, and their cache."""

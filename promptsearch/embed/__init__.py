"""Texts to unit vectors: an encoder's contract, the encoders that come with this package, their cache."""

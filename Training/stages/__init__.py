"""The stages of a training, one module each; ``Training.__main__`` strings them together."""

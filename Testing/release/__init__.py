"""What README and Makefile promise, tried in a fresh clone and a fresh environment."""

"""From weights and a reader's own cases to better weights, and whether they are better."""

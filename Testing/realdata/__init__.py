"""What the library does on the real CTs beside the repository: one table, and pictures."""

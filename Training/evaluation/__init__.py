"""Methods measured side by side on sets with a truth."""

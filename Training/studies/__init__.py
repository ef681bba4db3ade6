"""What each part of the method, and each departure from the paper, is worth."""

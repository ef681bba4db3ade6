"""Speed and memory beside the named peer, in the same run; ``make bench``."""

"""How much two masks have in common."""

import numpy as np


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice coefficient of two bool arrays; 0 where both are empty."""
    return 2.0 * np.sum(a & b) / max(np.sum(a) + np.sum(b), 1)

"""What every training shares: the engine, losses, processes, results."""

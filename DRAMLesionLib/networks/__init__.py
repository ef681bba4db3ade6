"""The networks of the method: the U-Net, the local attention, the regression network of both."""

"""The vessels of the lung: by the network, or by the Frangi filter."""

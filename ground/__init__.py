"""Ground segment: runs many satellites as one cluster, only through their links."""

"""Cards and disks of boards: stock images that become nodes, and the devices that they are written to."""

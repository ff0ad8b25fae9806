"""Emulated boards: an arm64 image of Debian packages and our wheel, and QEMU machines that boot it."""

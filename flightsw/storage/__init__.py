"""Durable state: an append log of CRC'd records over the disk port."""

"""Scenes, generated clouds, tiles and mosaics for the demonstration workload."""

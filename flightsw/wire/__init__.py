"""The protocol: pure bytes <-> values. No asyncio, time, random, os or logging."""

"""Power cuts: every store of flight and ground works, loses power anywhere, and must hold what it had promised."""

"""The links' impairments and the relay between interfaces."""

"""Real boards on a table: which there are, where their ports and plugs are, and how software comes onto them."""

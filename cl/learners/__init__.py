"""The networks that learn: a backbone of blocks and a head."""

"""A stand-in for YouTube (and for a mirror) on loopback, with videos whose content is known."""

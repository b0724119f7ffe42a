"""Is an answer right?  Rules by family, their registry, and how marks become a score."""

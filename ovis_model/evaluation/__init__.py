"""Models on benchmarks: what they answered, how often it was right, and how sure that is."""

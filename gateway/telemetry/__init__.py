"""What the gateway tells: one seam that observes, frozen records, and sinks that make signals of them."""

"""The one door to the network: connections, timeouts, stream framing, and every failure mapped once."""

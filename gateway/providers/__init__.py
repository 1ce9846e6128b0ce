"""Dialects and providers, pure: bytes and Structs in, Structs out. No I/O, no clock, no logging."""

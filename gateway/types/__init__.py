"""The vocabulary: frozen values and closed enums that every room shares. No I/O; imports nothing of ours."""

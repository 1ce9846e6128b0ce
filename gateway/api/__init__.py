"""HTTP only: one module a surface, and the statuses and bodies that errors become."""

"""The configuration: what a file may say (schema), and how it becomes Settings (load). Unknown fields are refused."""

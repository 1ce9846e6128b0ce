"""The story of a request: plan its targets, attempt them in turn, deliver what comes."""

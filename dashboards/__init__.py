"""Grafana dashboards, built in Python from the metric catalogue; `python -m dashboards` writes the JSON that is shipped."""

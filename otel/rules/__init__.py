"""Recording and alert rules, made from the metric catalogue and from the dashboards' thresholds."""

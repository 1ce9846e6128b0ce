"""What runs beside the gateway: the collector, Prometheus with its rules, Alertmanager, Tempo, and Grafana's provisioning."""

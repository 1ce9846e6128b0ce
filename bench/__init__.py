"""What a request through the gateway costs, measured on one machine.

The gateway has one core to itself; the load generator, the mock provider and the OTLP sink share another. Variants are
measured in interleaved rounds within one run, since a shared machine drifts more between runs than variants differ.
"""

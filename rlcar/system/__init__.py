"""The process and its host: signals, logging, cadence, durable files, leases, provenance."""

"""The plain documented agent: five small networks, without recurrence."""

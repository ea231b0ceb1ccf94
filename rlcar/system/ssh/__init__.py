"""Other hosts over OpenSSH: their names in the configuration, and a test of the connection."""

"""Serves trained policies over HTTP and WebSocket; it only reads the files that training wrote."""

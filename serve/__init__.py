"""The trained policy over HTTP and WebSocket; it only reads what training wrote."""

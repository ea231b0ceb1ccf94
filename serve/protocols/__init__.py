"""uvicorn protocols for HTTP and WebSockets that enforce limits on each connection."""

"""Connections within limits: uvicorn protocols for HTTP and WebSockets."""

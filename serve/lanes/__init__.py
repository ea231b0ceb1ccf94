"""The two ways to serve: Ray Serve, and uvicorn behind HAProxy."""

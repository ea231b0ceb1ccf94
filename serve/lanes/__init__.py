"""The two ways to serve (lanes): Ray Serve, and uvicorn behind HAProxy."""

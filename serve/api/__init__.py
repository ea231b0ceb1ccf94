"""Requests and answers: schema, binary frames, WebSocket and the OpenAPI document."""
